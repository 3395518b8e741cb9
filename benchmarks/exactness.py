"""How equal are tiled and whole raw outputs, with random float weights? ``python benchmarks/exactness.py``

Every test network, on the smallest tiles that advance (the most seams), against one pass of plain ONNX Runtime over
the whole image; prints Markdown.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.machine import describe_machine
from exactile_converters.deploy import Normalization
from tests.nets import NETS, onnx_bytes
from tests.oracle import whole_pass
from tests.test_exactness import image_for, image_size, segment, smallest_tile


def main() -> None:
    print(describe_machine())
    print("\nCommand: `python benchmarks/exactness.py`\n")
    print("| network | tiles | different labels | max-abs of raw outputs | largest raw output |")
    print("|---|---|---|---|---|")
    for name in NETS:
        tile, model = smallest_tile(name), onnx_bytes(name)
        image = image_for(name, *image_size(name, tile))
        normalization = Normalization(scale=(255.0,), mean=(0.5,), std=(0.25,))
        raw, summary, geometry = segment(model, image, normalization=normalization, tile=tile)
        whole = whole_pass(model, image, geometry, scale=255, mean=0.5, std=0.25)
        labels = np.count_nonzero(raw.argmax(0) != whole.argmax(0))
        largest = np.abs(raw - whole).max()
        print(f"| {name} | {summary.tiles} | {labels} | {largest:.2g} | {np.abs(whole).max():.1f} |", flush=True)


if __name__ == "__main__":
    main()
