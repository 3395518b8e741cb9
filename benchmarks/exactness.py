"""Compare raw outputs of tiles and of one pass, with random float weights: ``python -m benchmarks.exactness``

Every test network, on the smallest tiles that advance (the most seams), against one pass of plain ONNX Runtime over the
whole image.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np

from benchmarks.harness.part import run_part
from benchmarks.harness.record import Record, Table
from exactile_converters.deploy import Normalization
from tests.runs.test_exactness import image_for, image_size, segment, smallest_tile
from tests.support.nets import NETS, onnx_bytes
from tests.support.oracle import whole_pass

COLUMNS = ("network", "tiles", "different labels", "max-abs of raw outputs|.2g", "largest raw output|.1f")
FEW = ("unet_d1", "unet_transpose3_d2", "unet_bilinear_d2", "valid", "super_resolution")


def measure(options: argparse.Namespace) -> Iterator[Record]:
    table = Table(title="Tiles against one pass", columns=COLUMNS)
    for name in FEW if options.quick else NETS:
        tile, model = smallest_tile(name), onnx_bytes(name)
        image = image_for(name, *image_size(name, tile))
        normalization = Normalization(scale=(255.0,), mean=(0.5,), std=(0.25,))
        raw, summary, geometry = segment(model, image, normalization=normalization, tile=tile)
        whole = whole_pass(model, image, geometry, scale=255, mean=0.5, std=0.25)
        labels = np.count_nonzero(raw.argmax(0) != whole.argmax(0))
        largest = np.abs(raw - whole).max()
        table.add(name, summary.tiles, int(labels), float(largest), float(np.abs(whole).max()))
    yield Record(
        part="exactness",
        title="How equal tiles and one pass are",
        tables=[table],
    )


def main() -> None:
    run_part(measure, argparse.ArgumentParser(description=__doc__))


if __name__ == "__main__":
    main()
