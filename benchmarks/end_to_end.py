"""How much longer than the engine is busy does a whole run take? TIFF on disk -> label TIFF on disk.

``python benchmarks/end_to_end.py [--size 6144] [--rounds 3]`` runs the command line on a tiled deflate TIFF with
U-Nets of 8 and 16 base features, in turn, and prints medians as Markdown. ``total`` excludes starting Python,
reading the model and building the engine session; it includes the first read, all writes and the final assembly.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import tifffile
from skimage import data

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.machine import describe_machine
from exactile_converters.torch_export import export_onnx
from models.unet import UNet

COLUMNS = "| network | image | tile | computed / wanted | engine busy s | total s | total / busy | Mpx/s | peak MiB |"


def write_slide(path: Path, size: int) -> None:
    """Real stained tissue, mirrored to ``size`` x ``size`` pixels."""
    tissue = data.immunohistochemistry()
    both = np.concatenate([tissue, tissue[::-1]], axis=0)
    block = np.concatenate([both, both[:, ::-1]], axis=1)
    repeat = -(-size // block.shape[0])
    tifffile.imwrite(
        path, np.tile(block, (repeat, repeat, 1))[:size, :size], tile=(256, 256), compression="zlib", photometric="rgb"
    )


def run(model: Path, slide: Path, target: Path, memory: str) -> dict:
    command = [sys.executable, "-m", "exactile", "run", model, slide, "-o", target, "--scale", "255"]
    command += ["--memory", memory, "--overwrite", "--json"]
    return json.loads(subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=6144)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", default="2GiB")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        write_slide(place / "slide.tif", options.size)
        nets = {f"U-Net, {features} features, depth 3": features for features in (8, 16)}
        results: dict[str, list[dict]] = {name: [] for name in nets}
        for features in nets.values():
            export_onnx(UNet(3, 3, features=features, depth=3), place / f"{features}.onnx", 3)
        for _ in range(options.rounds):
            for name, features in nets.items():
                results[name].append(
                    run(place / f"{features}.onnx", place / "slide.tif", place / "labels.tif", options.memory)
                )
    print(describe_machine())
    print(f"\nCommand: `python benchmarks/end_to_end.py --size {options.size} --rounds {options.rounds}`\n")
    print(COLUMNS)
    print("|---|---|---|---|---|---|---|---|---|")
    for name, rounds in results.items():
        print(row(name, options.size, rounds))


def row(name: str, size: int, rounds: list[dict]) -> str:
    def median(value) -> float:
        return statistics.median(value(one) for one in rounds)

    last = rounds[-1]
    return (
        f"| {name} | {size} x {size} | {last['tile'][0]} x {last['tile'][1]} | {last['computed_over_wanted']:.3f} "
        f"| {median(lambda r: r['seconds']['infer']):.1f} | {median(lambda r: r['seconds']['total']):.1f} "
        f"| {median(lambda r: r['seconds']['total'] / r['seconds']['infer']):.3f} "
        f"| {median(lambda r: r['megapixels_per_second']):.2f} "
        f"| {max(r['peak_memory_bytes'] for r in rounds) / 2**20:.0f} |"
    )


if __name__ == "__main__":
    main()
