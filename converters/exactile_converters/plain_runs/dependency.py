"""Find which input rows an output row depends on, by running the network.

Along one axis at a time; the words say rows, for the x axis they are columns (the image is transposed).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from exactile.errors import EngineError
from exactile.geometry import AxisGeometry, Span, round_up
from exactile_converters.plain_runs.claim import Axis, Phase

Array = NDArray[Any]

BREADTH_PX = 32
"""Least width of the images along the axis that is not probed."""

LARGEST_BREADTH_PX = 1024
"""If the network runs at no width up to this, it runs at none."""

LARGEST_TRUE_STRIDE_PX = 64
"""If the network runs at no size that the claim accepts, sizes for strides up to this are tried."""

STRUCTURE_FLOOR_PX = 16
"""At least this many rows (and two strides) beyond the claimed halo are probed."""


class Runs(Protocol):
    """What is probed: ``Subject``, or anything else that maps images to maps."""

    channels: int
    dtype: np.dtype[Any]

    def run(self, image: Array) -> Array:
        """Map (H, W, C) to (C', H', W')."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """A narrow image along ``axis`` with room for more than the claimed halo around ``box`` (input rows).

    ``refused_px`` is a size that the claim accepts but at which the network does not run, unlike ``size``.
    """

    axis: Axis
    geometry: AxisGeometry
    box: Span
    size: int
    breadth: int
    refused_px: int | None = None

    @classmethod
    def of(cls, axis: Axis, geometry: AxisGeometry, other: AxisGeometry, subject: Runs) -> Lane:
        """Return a lane on which ``subject`` runs, as narrow as possible. Raises EngineError if it runs on none."""
        box, size = cls._box(geometry), cls.size_for(geometry)
        least, refusal = BREADTH_PX, None
        while least <= 2 * LARGEST_BREADTH_PX:
            breadth = other.accepted_size(max(least, other.stride))
            lane = cls(axis=axis, geometry=geometry, box=box, size=size, breadth=breadth)
            refusal = lane.refusal(subject)
            if refusal is None:
                # The size may suit a larger stride by chance: the next one then does not.
                following = replace(lane, size=geometry.accepted_size(size + 1))
                return replace(lane, refused_px=following.size if following.refusal(subject) else None)
            least *= 2  # reflecting borders need images that are wider than the border
        for multiple in range(2, LARGEST_TRUE_STRIDE_PX + 1):
            lane = cls(
                axis=axis,
                geometry=geometry,
                box=box,
                size=round_up(size, multiple),
                breadth=round_up(BREADTH_PX, multiple),
                refused_px=size,
            )
            if lane.refusal(subject) is None:
                return lane
        raise refusal or EngineError("the network runs at no size")

    @classmethod
    def size_for(cls, geometry: AxisGeometry) -> int:
        """Return the rows of a lane."""
        return geometry.accepted_size(cls._box(geometry).stop + _room(geometry))

    @classmethod
    def _box(cls, geometry: AxisGeometry) -> Span:
        start = round_up(_room(geometry), geometry.stride)
        return Span(start, start + 2 * geometry.stride)

    def refusal(self, subject: Runs) -> EngineError | None:
        """Return why ``subject`` does not run on the lane."""
        try:
            self.run(subject, np.ones((self.size, self.breadth, subject.channels), subject.dtype))
        except EngineError as error:
            return error
        return None

    @property
    def output_box(self) -> slice:
        return slice(self.geometry.output_position(self.box.start), self.geometry.output_position(self.box.stop))

    def run(self, subject: Runs, image: Array) -> Array:
        """Map ``image`` (rows, breadth, C) to (C', output rows, output breadth)."""
        if self.axis == "y":
            return subject.run(image)
        return subject.run(image.swapaxes(0, 1)).swapaxes(1, 2)


def _room(geometry: AxisGeometry) -> int:
    """Return the rows before and after the box of a lane: more than the claimed halo."""
    return max(geometry.margin_before, geometry.margin_after, 0) + 2 * geometry.stride + STRUCTURE_FLOOR_PX


def impulse_spans(subject: Runs, lane: Lane, marker: float, *, background: float = 1.0) -> Iterator[Span | None]:
    """Yield, for each row of the lane's box, the output rows that change when it is set to ``marker``, or None.

    The rest of the image is ``background``. Yields nothing when the network's own output is not finite.
    """
    image = np.full((lane.size, lane.breadth, subject.channels), background, subject.dtype)
    base = lane.run(subject, image)
    if not np.isfinite(base).all():
        return
    for row in range(lane.box.start, lane.box.stop):
        changed = image.copy()
        changed[row] = marker
        touched = np.flatnonzero((lane.run(subject, changed) != base).any(axis=(0, 2)))
        yield Span(int(touched[0]), int(touched[-1]) + 1) if touched.size else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """Input rows beyond an aligned box that influence it, as ``AxisGeometry.before`` and ``after`` count them."""

    before: int
    after: int
    before_cut: bool = False
    after_cut: bool = False


def reach_of(spans: list[Span | None], lane: Lane) -> Reach:
    """Return the farthest rows before and after any stride-aligned box, from the effect of each row of one period."""
    stride, geometry = lane.geometry.stride, lane.geometry
    step = geometry.output_position(stride)
    before, after = [], []
    for row, span in zip(range(lane.box.start, lane.box.stop), spans, strict=True):
        if span is not None:
            before.append((span.stop - 1) // step * stride - row)
            after.append(row + 1 - (span.start // step + 1) * stride)
    touched = [span for span in spans if span is not None]
    return Reach(
        before=max(before),
        after=max(after),
        before_cut=max(span.stop for span in touched) == geometry.output_size(lane.size),
        after_cut=min(span.start for span in touched) == 0,
    )


def phases_of(spans: list[Span | None], lane: Lane) -> tuple[Phase, ...]:
    """Return what ``spans`` show for each residue modulo the stride."""
    origin = lane.geometry.output_position(lane.box.start)
    return tuple(
        Phase(residue=residue, first=span.start - origin, last=span.stop - 1 - origin)
        for residue, span in enumerate(spans[: lane.geometry.stride])
        if span is not None
    )


def repeats_after(spans: list[Span | None], lane: Lane, shift: int) -> bool:
    """Return whether the effect of a row moves along when the row moves by ``shift``."""
    moved = lane.geometry.scale * shift
    if moved.denominator != 1:
        return False
    pairs = zip(spans[: len(spans) - shift], spans[shift:], strict=True)
    return all((one and one.shift(int(moved))) == other for one, other in pairs)


def visible_reach(subject: Runs, lane: Lane, generator: np.random.Generator) -> Reach:
    """Return the farthest rows whose large finite changes alter the box, with the original weights."""
    shape = (lane.size, lane.breadth, subject.channels)
    image, other = noise(generator, shape, subject.dtype, 1.0), noise(generator, shape, subject.dtype, 100.0)
    base = lane.run(subject, image)[:, lane.output_box]

    def alters(rows: slice) -> bool:
        changed = image.copy()
        changed[rows] = other[rows]
        return not np.array_equal(lane.run(subject, changed)[:, lane.output_box], base, equal_nan=True)

    # The first (last) row of the box surely influences it: bisect from the image's end to the box's far side.
    head = first_true(0, lane.box.stop, lambda stop: alters(slice(0, stop)))
    tail = first_true(0, lane.size - lane.box.start, lambda rows: alters(slice(lane.size - rows, lane.size)))
    return Reach(before=lane.box.start - head + 1, after=lane.size - tail + 1 - lane.box.stop)


def first_true(low: int, high: int, test: Callable[[int], bool]) -> int:
    """Return the smallest value above ``low`` for which the monotone ``test`` holds; ``high`` + 1 if it never does."""
    if not test(high):
        return high + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if test(middle) else (middle, high)
    return high


def noise(generator: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype[Any], size: float) -> Array:
    """Return normal noise of standard deviation ``size``, or uniform noise where ``dtype`` is an integer type."""
    if dtype.kind == "f":
        return (generator.standard_normal(shape) * size).astype(dtype)
    limits = np.iinfo(dtype)
    return generator.integers(0, min(limits.max, 255), shape, dtype=dtype, endpoint=True)


def commutes(subject: Runs, lane: Lane, image: Array, shift: int, tolerance: float) -> bool:
    """Return whether the output of ``image`` shifted by ``shift`` rows is the shifted output, away from the borders.

    ``image`` has at least ``shift`` rows more than the lane. ``tolerance`` is relative to the largest value.
    """
    moved = lane.geometry.scale * shift
    if moved.denominator != 1:
        return False
    there = lane.run(subject, image[: lane.size])
    here = lane.run(subject, image[shift : shift + lane.size])
    box = lane.output_box
    later = there[:, box.start + int(moved) : box.stop + int(moved)]
    same = (later == here[:, box]) | (np.isnan(later) & np.isnan(here[:, box]))
    if same.all():
        return True
    gap = np.where(same, 0, np.abs(later.astype(np.float64) - here[:, box]))
    return bool(gap.max() <= tolerance * float(np.nanmax(np.abs(here))))
