"""Taps of an antialiased Resize: along an axis that shrinks, the window grows by the same factor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from exactile_converters.placed.formula import Formula
from exactile_converters.placed.positions import Positions
from exactile_converters.placed.resampling import Resampling
from exactile_converters.placed.taps import near_weight

REACHES = {"linear": 1.0, "cubic": 2.0}
"""Reach of a filter along an axis that does not shrink."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """Taps of windows; t is the most taps that any pixel can have."""

    index: str
    """(t, n) int64: indices in the whole operand, clamped to it."""
    weight: str
    """(t, n) float32."""
    counts: str
    """(t, n) bool: false for taps that a window lacks; values there may be infinite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Filter:
    support: str
    """(1,) float32: reach in pixels of the operand."""
    squeeze: str
    """(1,) float32: factor of distances."""


def windows(formula: Formula, at: Positions, how: Resampling, most_taps: int) -> Windows:
    """Return windows clipped to the whole operand; weights of each sum to one.

    Weights of taps that are clipped are dropped, or added to the end of the operand.
    """
    found = _filter(formula, at, how)
    half, whole = formula.real(0.5), formula.whole(1)
    center = formula.plus(half, at.position)
    first = _whole_below(formula, formula.plus(formula.minus(center, found.support), half))
    behind = _whole_below(formula, formula.plus(formula.plus(center, found.support), half))
    first = formula.choose(at.copied, at.index, first)
    behind = formula.choose(at.copied, formula.plus(at.index, whole), behind)
    numbers = formula.nodes.constant(np.arange(most_taps, dtype=np.int64)[:, None])
    index = formula.plus(first, numbers)
    within = formula.between(index, formula.whole(0), at.last)
    counts = formula.both(formula.less(index, behind), formula.equal(index, within))
    distance = formula.plus(formula.minus(formula.as_real(index), center), half)
    weight = _weight(formula, formula.magnitude(formula.times(distance, found.squeeze)), how)
    weight = _kept(formula, counts if how.exclude_outside else formula.less(index, behind), weight)
    ends = weight if how.exclude_outside else _with_ends(formula, at, index, weight)
    return Windows(index=within, weight=_normalised(formula, ends, weight), counts=counts)


def _with_ends(formula: Formula, at: Positions, index: str, weight: str) -> str:
    """Add the weights of entries outside to those of the first and the last entry of the operand."""
    zero = formula.whole(0)
    before = _sum(formula, _kept(formula, formula.less(index, zero), weight))
    after = _sum(formula, _kept(formula, formula.less(at.last, index), weight))
    weight = formula.plus(weight, _kept(formula, formula.equal(index, zero), before))
    return formula.plus(weight, _kept(formula, formula.equal(index, at.last), after))


def _kept(formula: Formula, condition: str, weight: str) -> str:
    return formula.choose(condition, weight, formula.real(0))


def _filter(formula: Formula, at: Positions, how: Resampling) -> _Filter:
    one, reach = formula.real(1), formula.real(REACHES[how.kind])
    shrink = formula.over(one, at.scale)
    grows = formula.less(shrink, one)
    return _Filter(
        support=formula.choose(grows, reach, formula.times(reach, shrink)),
        squeeze=formula.choose(grows, one, formula.over(one, shrink)),
    )


def _whole_below(formula: Formula, value: str) -> str:
    return formula.as_whole(formula.floor(value))


def _weight(formula: Formula, distance: str, how: Resampling) -> str:
    """Return the filter at a non-negative distance: a triangle, or Keys' cubic."""
    one, zero = formula.real(1), formula.real(0)
    is_near = formula.less(distance, one)
    if how.kind == "linear":
        return formula.choose(is_near, formula.minus(one, distance), zero)
    two = formula.real(2)
    far = formula.plus(formula.times(formula.minus(distance, formula.real(5)), distance), formula.real(8))
    far = formula.minus(formula.times(far, distance), formula.real(4))
    far = formula.times(far, formula.real(how.cubic_coefficient))
    near = near_weight(formula, distance, how.cubic_coefficient)
    return formula.choose(is_near, near, formula.choose(formula.less(distance, two), far, zero))


def _normalised(formula: Formula, weight: str, summed: str) -> str:
    """Divide ``weight`` by the sums of ``summed``. A product with the inverse is not rounded like a quotient."""
    total, one = _sum(formula, summed), formula.real(1)
    # The choice also keeps ONNX Runtime from turning it into a quotient.
    inverse = formula.choose(formula.equal(total, formula.real(0)), one, formula.over(one, total))
    return formula.times(weight, inverse)


def _sum(formula: Formula, weight: str) -> str:
    """Sum (t, n) to (1, n) in order, as CumSum does: a reduction may add in another order for other n."""
    sums = formula.nodes.add("CumSum", [weight, formula.scalar(formula.whole(0))])
    return formula.nodes.add("Gather", [sums, formula.whole(-1)], axis=0)
