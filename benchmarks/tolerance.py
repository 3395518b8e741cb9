"""What a tolerance saves, and whether the error that a run tells is the one it has.

``python -m benchmarks.tolerance [--quick]`` runs the trained ``models/stain_unet.onnx`` over the mirrored micrograph in
exact tiles of 512, in strips, and in tiles of 512 with several tolerances, in turn within each round, from array to
array; times are divided by those of exact tiles in the same round, checks and the choice of the halo included. All
results are compared with the exact ones in full.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from benchmarks.harness.part import run_part
from benchmarks.harness.record import Record, Table
from benchmarks.harness.worker import ROOT
from benchmarks.paper_tables import mirrored
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource
from exactile.tolerance.measure import CurveWish
from exactile_converters.deploy import Normalization, deploy
from exactile_converters.from_onnx import load_network
from models.train_stain_unet import MEAN, SCALE, STD

TILE = 512
TOLERANCES = ("labels:1e-3", "labels:1e-4", "labels:1e-5")
EXACT, STRIPS = "exact tiles", "strips"


@dataclass(slots=True)
class Way:
    """``options`` of ``Session.segment``; times by exact tiles; what the last run gave."""

    session: Session
    options: dict[str, Any]
    ratios: list[float] = field(default_factory=list)
    summary: Any = None
    labels: Any = None

    def run(self, image: np.ndarray) -> float:
        sink = ArraySink()
        begin = time.perf_counter()
        self.summary = self.session.segment(ArraySource(image), sink, **self.options)
        taken = time.perf_counter() - begin
        self.labels = sink.result
        return taken


def ways(image: np.ndarray) -> dict[str, Way]:
    """By name; with the curve of a bundle, measured on the micrograph's own pixels, and without."""
    normalization = Normalization(scale=(SCALE,), mean=(MEAN,), std=(STD,))
    network = load_network(ROOT / "models" / "stain_unet.onnx")
    model = deploy(network, image_dtype="uint8", normalization=normalization)
    plain = Session(model, keep_engine=True)
    found = {
        EXACT: Way(plain, {"plan": "tile", "tile": (TILE, TILE)}),
        STRIPS: Way(plain, {"plan": "strip"}),
    }
    curve = plain.error_curve({"micrograph": ArraySource(image)}, CurveWish(tile=(TILE, TILE), zones=8))
    known = Session(replace(model, error_curve=curve), keep_engine=True)
    for tolerance in TOLERANCES:
        options = {"tile": (TILE, TILE), "tolerance": tolerance}
        found[f"{tolerance}, by a curve"] = Way(known, options)
        found[f"{tolerance}, by its own sample"] = Way(plain, options)
    return found


def measure(options: argparse.Namespace) -> Iterator[Record]:
    image = mirrored(1024 if options.quick else options.side)
    found = ways(image)
    for way in found.values():
        way.run(image)  # first touch of memory, code that is loaded when it is used
    for _round in range(1 if options.quick else options.rounds):
        taken = {name: way.run(image) for name, way in found.items()}
        for name, seconds in taken.items():
            found[name].ratios.append(seconds / taken[EXACT])
    table = Table(
        title=f"{image.shape[0]} x {image.shape[1]}, tiles of {TILE}",
        columns=(
            "way", "halo, px", "tiles", "tiles checked", "error expected|.1e", "error found|.1e",
            "labels that differ, all|d", "share|.1e", "time by exact tiles|.2f", "least|.2f", "greatest|.2f",
        ),
        note="Error: share of other labels, in tiles that were looked at and in all. The halo is the exact "
        "one where the run went back to the exact plan.",
    )  # fmt: skip
    for name, way in found.items():
        told, differing = way.summary.tolerance, int(np.count_nonzero(way.labels != found[EXACT].labels))
        numbers = (told.halo_px, way.summary.tiles, told.checked, told.expected, told.found) if told else (
            None, way.summary.tiles, None, None, None)  # fmt: skip
        table.add(
            f"{name}{' (exact)' if told and told.exact else ''}", *numbers, differing, differing / way.labels.size,
            statistics.median(way.ratios), min(way.ratios), max(way.ratios),
        )  # fmt: skip
    yield Record(part="tolerance", title="Less than exact", tables=[table], raw={n: w.ratios for n, w in found.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=3)
    run_part(measure, parser)


if __name__ == "__main__":
    main()
