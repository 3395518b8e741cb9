"""Probe dependencies with integer weights: which pixels change an aligned box, without rounding.

Along one axis at a time; the words say rows. ``a`` and ``b`` are the ends of a stride-aligned box:

      zeros   a-before                a         b                 b+after   zeros
    ------------|---------------------|---------|---------------------|------------
    all ones here: nothing changes    |   box   |    all ones here: nothing changes
                |one here: changes    |         |  one at b+after-1: changes
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.geometry import Span
from exactile_converters.plain_runs.claim import IntegerProbe, Side
from exactile_converters.plain_runs.dependency import Lane, Runs, impulse_spans, repeats_after


@dataclass(frozen=True, slots=True, kw_only=True)
class Ones:
    """An integer copy along ``lane``: shows which boxes see ones in an image of zeros."""

    integers: Runs
    lane: Lane
    base: NDArray[Any]

    @classmethod
    def of(cls, integers: Runs, lane: Lane) -> Ones | None:
        """Return the copy; None where zeros and ones do not stay exact in it."""
        blank = np.zeros((lane.size, lane.breadth, integers.channels), integers.dtype)
        base, full = lane.run(integers, blank), lane.run(integers, blank + blank.dtype.type(1))
        exact = all(np.isfinite(output).all() and np.abs(output).max() <= _largest(output) for output in (base, full))
        return cls(integers=integers, lane=lane, base=base) if exact and not np.array_equal(base, full) else None

    def change(self, rows: slice, box: Span) -> bool:
        """Return whether ones in ``rows`` change the output box that belongs to the input rows ``box``."""
        lane = self.lane
        image = np.zeros((lane.size, lane.breadth, self.integers.channels), self.integers.dtype)
        image[rows] = 1
        seen = slice(lane.geometry.output_position(box.start), lane.geometry.output_position(box.stop))
        return not np.array_equal(lane.run(self.integers, image)[:, seen], self.base[:, seen])


def _largest(output: NDArray[Any]) -> float:
    """Return the largest integer up to which its type holds all integers."""
    return 2.0 ** (np.finfo(output.dtype).nmant + 1) if output.dtype.kind == "f" else np.inf


def integer_spans(integers: Runs, lane: Lane) -> list[Span | None]:
    """Return the output rows that a one in each row of the lane's box changes; empty if nothing passes through."""
    found = list(impulse_spans(integers, lane, 1.0, background=0.0))
    return found if any(found) else []


def probe_integers(ones: Ones, spans: list[Span | None]) -> IntegerProbe:
    """Try the claimed geometry of the lane at several aligned boxes; ``spans`` as from ``integer_spans``."""
    lane, geometry = ones.lane, ones.lane.geometry
    stride = geometry.stride
    # One stride more on either side than the lane's own box: the lane has room for two.
    starts = range(lane.box.start - stride, lane.box.stop + stride, stride)
    boxes = [Span(start, start + stride) for start in starts]
    before: Side = "top" if lane.axis == "y" else "left"
    after: Side = "bottom" if lane.axis == "y" else "right"
    tried: dict[Side, list[tuple[bool, bool]]] = {before: [], after: []}
    for box in boxes:
        first, last = box.start - geometry.before, box.stop + geometry.after - 1
        tried[before].append((ones.change(slice(0, first), box), ones.change(slice(first, first + 1), box)))
        tried[after].append((ones.change(slice(last + 1, lane.size), box), ones.change(slice(last, last + 1), box)))
    return IntegerProbe(
        stride=stride,
        boxes=len(boxes),
        residues=stride,
        beyond=tuple(side for side, seen in tried.items() if any(outside for outside, _ in seen)),
        idle=tuple(side for side, seen in tried.items() if not all(edge for _, edge in seen)),
        commuting_shifts=tuple(shift for shift in range(1, stride + 1) if repeats_after(spans, lane, shift)),
        placed=geometry.placed,
    )
