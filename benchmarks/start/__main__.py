"""Run a network as an ONNX file, at its first run and at later ones, beside its bundle: ``python -m benchmarks.start``.

Each time is that of a whole process: Python starts, imports, takes the network, segments 512 x 512 pixels from TIFF to
TIFF and ends. *First run*: nothing is known of the file. *Claim known*: it was checked by running before, and is
deployed again; so it is at every run with ``--no-cache``, which keeps nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from benchmarks.harness.part import run_part
from benchmarks.harness.record import Record, Table
from benchmarks.harness.turns import in_turn, ratios, spread
from benchmarks.harness.worker import ROOT
from benchmarks.networks import exported, unet
from benchmarks.side_by_side.subject import DEPTH, tissue, write_image

SIDE = 512
BUNDLE, FIRST, CLAIM_KNOWN, NO_CACHE, LATER = (
    "bundle",
    "ONNX file, first run",
    "ONNX file, claim known",
    "ONNX file, --no-cache",
    "ONNX file, second run",
)
STAGES = {"python": "Python starts", "imports": "imports", "model": "the network", "image": "all else"}
CASES = {"16": "U-Net, 16 features", "64": "U-Net, 64 features"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A network in ``folder``: ``net.onnx`` and its bundle ``net``; what is kept of it goes there, too."""

    name: str
    folder: Path
    image: Path

    @property
    def environment(self) -> dict[str, str]:
        quiet = {"NO_COLOR": "1", "PYTHONWARNINGS": "ignore", "EXACTILE_CACHE_SIZE": "1GiB"}
        return {**os.environ, **quiet, "EXACTILE_CACHE_DIR": str(self.folder / "cache")}

    def call(self, module: str, *arguments: object) -> str:
        command = [sys.executable, "-m", module, *map(str, arguments)]
        return subprocess.run(
            command, check=True, cwd=ROOT, capture_output=True, text=True, env=self.environment
        ).stdout

    def arguments(self, way: str) -> list[object]:
        """Return the arguments of ``exactile run``; what is known of the file is set up as ``way`` asks for."""
        if way in (FIRST, CLAIM_KNOWN):
            shutil.rmtree(self.folder / "cache" / "models", ignore_errors=True)
        if way == FIRST:
            shutil.rmtree(self.folder / "cache", ignore_errors=True)
        network = self.folder / ("net" if way == BUNDLE else "net.onnx")
        options = ["--scale", "255"] if way != BUNDLE else []
        end = ["-o", self.folder / "labels.tif", "--overwrite", *(["--no-cache"] if way == NO_CACHE else [])]
        return [network, self.image, *end, *options]

    def run(self, way: str) -> float:
        """Return seconds of a whole process."""
        arguments = self.arguments(way)
        begin = time.perf_counter()
        self.call("exactile", "run", *arguments)
        return time.perf_counter() - begin

    def stages(self, way: str) -> dict[str, float]:
        arguments = self.arguments(way)
        lines = self.call("benchmarks.start.stages", time.time(), *arguments).strip().splitlines()
        found: dict[str, float] = json.loads(lines[-1])
        return found


def made(folder: Path, features: str) -> Case:
    image = write_image(folder / "image.tif", SIDE)
    net = unet(int(features), DEPTH, torch.from_numpy(tissue(256)).permute(2, 0, 1)[None] / 255)
    (folder / "net.onnx").write_bytes(exported(net))
    case = Case(name=CASES[features], folder=folder, image=image)
    case.call("exactile", "convert", folder / "net.onnx", "-o", folder / "net", "--scale", 255)
    return case


def measure(options: argparse.Namespace) -> Iterator[Record]:
    large = options.case != "16"
    rounds = options.rounds or (2 if options.quick else 5 if large else 7)
    whole = Table(title="Whole processes", columns=("way", "seconds|.2f", "by the bundle|.2f", "spread"))
    parts = Table(title="In parts", columns=("way", *(f"{title}|.2f" for title in STAGES.values())))
    ways = [way for way in (BUNDLE, FIRST, CLAIM_KNOWN, NO_CACHE, LATER) if not (large and way == FIRST)]
    with tempfile.TemporaryDirectory() as folder:
        case = made(Path(folder), options.case)
        # The second run comes after one that leaves what it finds.
        seconds = in_turn({way: partial(case.run, way) for way in ways}, rounds, warm_up=1, say=case.name)
        for way in ways:
            by = ratios(seconds[way], seconds[BUNDLE])
            whole.add(way, statistics.median(seconds[way]), statistics.median(by), spread(by))
        staged: dict[str, list[dict[str, float]]] = {way: [] for way in (BUNDLE, LATER, NO_CACHE)}
        for _ in range(rounds):
            for way, found in staged.items():
                found.append(case.stages(way))
        for way, found in staged.items():
            parts.add(way, *(statistics.median(one[stage] for one in found) for stage in STAGES))
    remarks = (__doc__ or "").split("\n\n", 1)[1].strip()
    yield Record(
        part=f"start-{options.case}",
        title=f"First run and later ones: {case.name}",
        tables=[whole, parts],
        module="start",
        arguments=f"--case {options.case}",
        remarks=remarks,
        raw={"seconds": seconds},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES, default="16")
    parser.add_argument("--rounds", type=int)
    run_part(measure, parser)


if __name__ == "__main__":
    main()
