"""Installed size, import time and time to the first labels, beside the peers. ``python -m benchmarks.startup``

Import time is that of a Python that imports and ends, less that of one that only ends. *First labels* is a whole
process: Python starts, imports, opens a U-Net with 16 features, segments 512 x 512 pixels from TIFF to TIFF and ends.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.harness.part import run_part
from benchmarks.harness.record import Record, Table
from benchmarks.harness.turns import in_turn, median_ratio
from benchmarks.harness.worker import ROOT, run_worker
from benchmarks.side_by_side.asking import PEERS, Ask
from benchmarks.side_by_side.cases import Entry, entries
from benchmarks.side_by_side.subject import write_image, write_network

SIDE = 512
ORT_SCRIPT = "a script with ONNX Runtime, tifffile"
NEEDED = "exactile, what a run needs"
IMPORTS = {
    "exactile": "import exactile",
    NEEDED: "from exactile import Session, open_bundle, open_sink, open_source; import onnxruntime",
    ORT_SCRIPT: "import numpy, tifffile, onnxruntime",
    "MONAI": "from monai.inferers import SlidingWindowInferer",
    "tiler": "import tiler",
    "patchly": "from patchly.aggregator import Aggregator",
    "bioimageio.core": "import bioimageio.core",
    "torch_em": "from benchmarks.side_by_side.contenders import torch_em_halo",
    "CSBDeep": "from csbdeep.internals.predict import tile_iterator",
}
INSTALLED = {
    "exactile": ["exactile[cpu]"],
    ORT_SCRIPT: ["numpy", "tifffile", "imagecodecs", "onnxruntime"],
    "MONAI": ["monai", "onnxruntime", "tifffile", "imagecodecs"],
    "tiler": ["tiler", "onnxruntime", "tifffile", "imagecodecs"],
    "patchly": ["patchly", "onnxruntime", "tifffile", "imagecodecs"],
    "bioimageio.core": ["bioimageio.core", "onnxruntime", "tifffile", "imagecodecs"],
    "torch_em": ["torch_em", "tifffile", "imagecodecs"],
    "CSBDeep": ["csbdeep", "onnxruntime", "tifffile", "imagecodecs"],
}
FIRST = (
    "exactile, tiles",
    "exactile, strips",
    "naive tiles 512",
    "naive tiles 512, torch",
    "MONAI, overlap 0.25 (its default)",
    "MONAI, overlap 0.25 (its default), torch",
    "tiler, hann, overlap 0.5",
    "bioimageio.core, blocks 1024, halo 96",
    "torch_em, blocks 832 + halo 96, torch",
    "CSBDeep, tiles of about 1024, halo 96",
)
SMALLER = {"bioimageio_core": {"block": SIDE}, "torch_em_halo": {"block": SIDE - 2 * 96}}
"""The image is smaller than some blocks."""


def measure(options: argparse.Namespace) -> Iterator[Record]:
    rounds = options.rounds or (2 if options.quick else 4)
    tables = [installed(options.peers), imported(options.peers, rounds), first_labels(options.peers, rounds)]
    yield Record(part="startup", title="Start-up", tables=tables, remarks=__doc__.split("\n\n", 1)[1].strip())


def installed(peers: Path) -> Table:
    note = (
        "A CPU build of torch, where one is needed; the one that pip takes by itself adds CUDA's libraries, several "
        "GB. With all that a script needs to read and write TIFF and to run an ONNX file."
    )
    table = Table(title="Installed size", columns=("what", "MB|.0f", "distributions"), note=note)
    for name, names in INSTALLED.items():
        python = sys.executable if name == "exactile" else peers
        (size,) = run_worker("benchmarks.startup.size", {"groups": [names]}, python=python).values()
        table.add(name, size["bytes"] / 1e6, size["distributions"])
    return table


def imported(peers: Path, rounds: int) -> Table:
    def run(name: str) -> None:
        python = sys.executable if name.startswith("exactile") else peers
        command = [str(python), "-W", "ignore", "-c", IMPORTS.get(name, "pass")]
        subprocess.run(command, check=True, cwd=ROOT, capture_output=True, env={**os.environ, "NO_COLOR": "1"})

    names = ["nothing", *IMPORTS]
    seconds = in_turn({name: partial(run, name) for name in names}, rounds, warm_up=1, say="importing")
    table = Table(title="Import time", columns=("what", "seconds|.2f", "by the script's|.1f"))
    net = {
        name: [max(1e-3, one - bare) for one, bare in zip(taken, seconds["nothing"], strict=True)]
        for name, taken in seconds.items()
        if name != "nothing"
    }
    for name, taken in net.items():
        table.add(name, statistics.median(taken), median_ratio(taken, net[ORT_SCRIPT]))
    return table


def first_labels(peers: Path, rounds: int) -> Table:
    chosen = {entry.title: entry for entry in entries(16) if entry.title in FIRST}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        network, image = write_network(place / "network", 16), write_image(place / "image.tif", SIDE)

        ask = Ask(network=network, image=image, output=place / "labels.tif", peers=peers)

        def run(entry: Entry) -> float:
            begin = time.perf_counter()
            ask(entry, **SMALLER.get(entry.module, {}))
            return time.perf_counter() - begin

        ways = {title: partial(run, chosen[title]) for title in FIRST}
        seconds = in_turn(ways, rounds, warm_up=1, say="first labels")
    columns = ("what", "seconds|.2f", "by exactile's strips|.2f")
    table = Table(title=f"From nothing to the first labels, {SIDE} x {SIDE}", columns=columns)
    for title, taken in seconds.items():
        table.add(title, statistics.median(taken), median_ratio(taken, seconds["exactile, strips"]))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--peers", type=Path, default=PEERS)
    run_part(measure, parser)


if __name__ == "__main__":
    main()
