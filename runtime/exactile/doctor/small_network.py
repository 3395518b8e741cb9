"""The two small networks, and how they are run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from exactile.bundle.opening import Bundle, open_bundle
from exactile.contract import DeployedModel
from exactile.pipeline.timing import TimeSpan
from exactile.planning import PlanName
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource

Array = NDArray[Any]
Name = Literal["labels", "scores"]

FOLDER = Path(__file__).with_name("bundles")
IMAGE_PX = 1024
TILE_PX = 256
STRIP_ROWS = 64
LARGEST_SAMPLE = 7
"""Largest sample of the images that ``labels`` computes exactly on every machine."""


def bundle_path(name: Name) -> Path:
    return FOLDER / f"{name}.bundle"


def open_small(name: Name) -> Bundle:
    """Return the network. ``labels`` has integer weights and must give the same labels everywhere, ``scores`` gives its
    raw output.

    Raises BundleError.
    """
    return open_bundle(bundle_path(name))


def noise_image() -> Array:
    """Return noise, (H, W, C) uint8."""
    shape = (IMAGE_PX, IMAGE_PX, 3)
    return np.random.default_rng(0).integers(0, LARGEST_SAMPLE + 1, shape, dtype=np.uint8)


def shape_of(plan: PlanName) -> tuple[int, int] | None:
    """Return a tile, or rows and band of strips, of which the image takes many."""
    return {"tile": (TILE_PX, TILE_PX), "strip": (STRIP_ROWS, IMAGE_PX)}.get(plan)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """A result, its seconds with everything open, a trace, and what computed it."""

    result: Array
    seconds: float
    spans: list[TimeSpan]
    processor: str


def run(
    model: DeployedModel, image: Array, *, plan: PlanName, device: str = "cpu", engine: str = "auto", times: int = 2
) -> Ran:
    """Segment ``image`` ``times`` times in one session; the last run counts. Raises ExactileError."""
    spans: list[TimeSpan] = []
    session = Session(model, device=device, engine=engine, keep_engine=True)
    try:
        for _ in range(times):
            spans.clear()
            sink = ArraySink()
            summary = session.segment(
                ArraySource(image), sink, plan=plan, tile=shape_of(plan), trace=lambda span, _steps: spans.append(span)
            )
    finally:
        session.close()
    return Ran(result=sink.result, seconds=summary.seconds.total, spans=spans, processor=summary.processor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The difference of two results: pixels whose labels differ (maps: whose largest channel differs), and map values.

    ``max_abs`` is infinite if one is not a number.
    """

    pixels: int
    differing: int
    max_abs: float
    largest: float

    @property
    def relative(self) -> float:
        return self.max_abs / max(self.largest, 1e-6)


def difference(expected: Array, found: Array) -> Difference:
    """Compare two results: labels, (H, W), or maps, (C, H, W)."""
    if expected.ndim == 2:
        differing = int(np.count_nonzero(expected != found))
        return Difference(pixels=expected.size, differing=differing, max_abs=0.0, largest=0.0)
    wanted, got = expected.astype(np.float64), found.astype(np.float64)
    apart = np.abs(wanted - got).max(initial=0.0)
    return Difference(
        pixels=expected[0].size,
        differing=int(np.count_nonzero(wanted.argmax(0) != got.argmax(0))),
        max_abs=float(apart) if np.isfinite(got).all() else float("inf"),
        largest=float(np.abs(wanted).max(initial=0.0)),
    )
