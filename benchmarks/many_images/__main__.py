"""Many small images, one after the other, beside a plain loop. ``python -m benchmarks.many_images``

Both are whole processes that take a folder of TIFF files to a folder of labels, by a U-Net of 16 features. The plain
loop is what a user would write: tifffile, NumPy, and one ONNX Runtime session with its defaults. ``exactile run`` takes
the bundle, and writes a record beside each result. *Each further image* is the time of all images less that of one, for
each of the others: without what starting a process takes. *Other labels* are counted over all images.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import tifffile

from benchmarks.harness.part import run_part
from benchmarks.harness.record import Record, Table
from benchmarks.harness.turns import in_turn, median_ratio, ratios, spread
from benchmarks.harness.worker import ROOT
from benchmarks.side_by_side.subject import tissue, write_network

SIDES = {256: 100, 512: 40}
"""Side in pixels, and how many images."""

PLAIN, OURS = "plain loop", "exactile run"
COLUMNS = (
    "pixels", "images", "what", "ms an image|.1f", "by the plain loop|.2f", "least to greatest",
    "ms each further image|.1f", "by the plain loop|.2f", "other labels|d",
)  # fmt: skip


def measure(options: argparse.Namespace) -> Iterator[Record]:
    table = Table(title="Whole processes", columns=COLUMNS)
    with tempfile.TemporaryDirectory() as folder:
        network = write_network(Path(folder) / "network", 16)
        for side, images in SIDES.items():
            count = max(2, images // 20) if options.quick else images
            add_rows(
                table, network, Path(folder) / str(side), side, count, rounds=1 if options.quick else options.rounds
            )
    yield Record(
        part="many_images", title="Many small images", tables=[table], remarks=__doc__.split("\n\n", 1)[1].strip()
    )


def add_rows(table: Table, network: Path, folder: Path, side: int, count: int, *, rounds: int) -> None:
    images, one = folder / "images", folder / "one"
    write_images(images, side, count)
    one.mkdir()
    shutil.copy(next(images.iterdir()), one)
    ways = {
        f"{name}, {what}": partial(run, name, network, which, folder / name.replace(" ", "-"))
        for what, which in (("one", one), ("all", images))
        for name in (PLAIN, OURS)
    }
    seconds = in_turn(ways, rounds, warm_up=1, say=f"{side} x {side}")
    every = {name: [taken / count for taken in seconds[f"{name}, all"]] for name in (PLAIN, OURS)}
    further = {
        name: [
            (taken - first) / (count - 1)
            for taken, first in zip(seconds[f"{name}, all"], seconds[f"{name}, one"], strict=True)
        ]
        for name in (PLAIN, OURS)
    }
    for name in (PLAIN, OURS):
        table.add(
            side, count, name,
            1e3 * statistics.median(every[name]), median_ratio(every[name], every[PLAIN]),
            spread(ratios(every[name], every[PLAIN])),
            1e3 * statistics.median(further[name]), median_ratio(further[name], further[PLAIN]),
            other_labels(folder / "plain-loop", folder / "exactile-run"),
        )  # fmt: skip


def write_images(folder: Path, side: int, count: int) -> None:
    """Write parts of a stained section, all different."""
    folder.mkdir(parents=True)
    section = tissue(2 * side + count)
    for number in range(count):
        part = section[number : number + side, 7 * number % side :][:, :side]
        tifffile.imwrite(folder / f"{number:04d}.tif", part, compression="zlib", photometric="rgb")


def run(name: str, network: Path, images: Path, labels: Path) -> None:
    shutil.rmtree(labels, ignore_errors=True)
    if name == PLAIN:
        labels.mkdir()
        command = ["benchmarks.many_images.plain_loop", network / "network.onnx", images, labels]
    else:
        command = ["exactile", "run", network / "labels.bundle", images, "-o", labels]
    subprocess.run([sys.executable, "-m", *map(str, command)], check=True, capture_output=True, cwd=ROOT)


def other_labels(one: Path, other: Path) -> int:
    """Count the labels that differ. Raises AssertionError if an image is missing."""
    names = sorted(path.name for path in one.glob("*.tif"))
    assert names == sorted(path.name for path in other.glob("*.tif")), "not the same images"
    return sum(int(np.count_nonzero(tifffile.imread(one / name) != tifffile.imread(other / name))) for name in names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    run_part(measure, parser)


if __name__ == "__main__":
    main()
