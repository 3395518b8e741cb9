"""What a tolerance saves, and whether the error that a run reports is the error it has.

``python -m benchmarks.tolerance [--quick]`` runs the trained ``models/stain_unet.onnx`` over the mirrored micrograph in
exact tiles of 512, and in tiles of 512 with several tolerances, by a curve that was measured before and by the image's
own sample. All results are compared with the exact ones in full. Nothing is timed: pixels that are computed tell the
cost, to which each tile that is checked adds itself and an exact one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmarks.harness.part import run_part
from benchmarks.harness.record import Record, Table
from benchmarks.harness.worker import ROOT
from benchmarks.paper_tables import mirrored
from exactile.runs.summary import Summary
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource
from exactile.tolerance.measure import CurveWish
from exactile_converters.deploy import Normalization, deploy
from exactile_converters.prepare.from_onnx import load_network
from models.train_stain_unet import MEAN, SCALE, STD

TILE = 512
TOLERANCES = ("labels:1e-3", "labels:1e-4", "labels:1e-5")
EXACT = "exact tiles"


@dataclass(slots=True, kw_only=True)
class Way:
    """``options`` of ``Session.segment``."""

    session: Session
    options: dict[str, Any]

    def run(self, image: np.ndarray) -> tuple[Summary, np.ndarray]:
        sink = ArraySink()
        return self.session.segment(ArraySource(image), sink, tile=(TILE, TILE), **self.options), sink.result


def ways(image: np.ndarray) -> dict[str, Way]:
    """Return ways by name; with a curve as a bundle may have one, measured on the same image, and without."""
    normalization = Normalization(scale=(SCALE,), mean=(MEAN,), std=(STD,))
    network = load_network(ROOT / "models" / "stain_unet.onnx")
    model = deploy(network, image_dtype="uint8", normalization=normalization)
    plain = Session(model, keep_engine=True)
    curve = plain.error_curve({"micrograph": ArraySource(image)}, CurveWish(tile=(TILE, TILE), zones=8))
    known = Session(replace(model, error_curve=curve), keep_engine=True)
    found = {EXACT: Way(session=plain, options={"plan": "tile"})}
    for tolerance in TOLERANCES:
        found[f"{tolerance}, by a curve"] = Way(session=known, options={"tolerance": tolerance})
        found[f"{tolerance}, by its own sample"] = Way(session=plain, options={"tolerance": tolerance})
    return found


def measure(options: argparse.Namespace) -> Iterator[Record]:
    image = mirrored(1024 if options.quick else options.side)
    table = Table(
        title=f"{image.shape[0]} x {image.shape[1]}, tiles of {TILE}",
        columns=(
            "way", "halo, px", "tiles", "tiles checked", "other labels expected|.1e", "found|.1e", "in all|.1e",
            "pixels|d", "computed / wanted|.2f",
        ),
        note="Other labels: shares in tiles that were measured before, in tiles that were checked, and in all. "
        "Where it says exact, the run went back to the exact plan.",
    )  # fmt: skip
    exact = None
    for name, way in ways(image).items():
        summary, labels = way.run(image)
        exact = labels if exact is None else exact
        told, differing = summary.tolerance, int(np.count_nonzero(labels != exact))
        numbers = (None, summary.tiles, None, None, None)
        if told is not None:
            numbers = (told.halo_px, summary.tiles, told.checked, told.expected, told.found)
        shown = f"{name} (exact)" if told and told.exact else name
        table.add(shown, *numbers, differing / labels.size, differing, summary.computed_pixels / summary.wanted_pixels)
        print(shown, *numbers, differing, file=sys.stderr, flush=True)
    yield Record(part="tolerance", title="Less than exact", tables=[table])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=2048)
    run_part(measure, parser)


if __name__ == "__main__":
    main()
