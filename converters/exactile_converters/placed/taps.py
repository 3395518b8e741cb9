"""Compute which entries of the whole operand each entry of a piece reads, and their weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from exactile_converters.placed.formula import Formula
from exactile_converters.placed.positions import Positions
from exactile_converters.placed.resampling import Resampling

TIE_TOLERANCE = 1e-6
"""Pixels: closer than this to halfway between two pixels, ONNX Runtime takes a position for halfway (from 1.32 on)."""

COPIES = (1 / 8, 1 / 8, 1 / 4, 1 / 2)
"""Weights of four taps at the same entry whose sum is that entry: no step is rounded, and none multiplies infinity by
0."""


@dataclass(frozen=True, slots=True)
class Tap:
    """One of the entries: all names are of tensors of shape (n,), one for each entry of the piece."""

    index: str
    """int64: its index in the whole operand, clamped to it."""
    weight: str
    """float32."""


def nearest(formula: Formula, at: Positions, how: Resampling) -> str:
    """Return the index in the whole operand, (n,) int64."""
    found = formula.as_whole(_rounded(formula, at, how.rounding))
    return formula.between(found, formula.whole(0), at.last)


def _rounded(formula: Formula, at: Positions, rounding: str) -> str:
    """Round to an integer as float32. Below zero it may be off by one: it is clamped to zero anyway."""
    below = formula.floor(at.position)
    if rounding == "floor":
        return below
    if rounding == "ceil":
        return formula.ceiling(at.position)
    if rounding == "simple":
        shrinks = formula.less(at.scale, formula.real(1))
        return formula.choose(shrinks, formula.ceiling(at.position), below)
    beyond, half = formula.minus(at.position, below), formula.real(0.5)  # exact, where adding a half would round
    above, tolerance = formula.plus(below, formula.real(1)), formula.real(TIE_TOLERANCE)
    if rounding == "round_prefer_ceil":
        return formula.choose(formula.less(tolerance, formula.minus(half, beyond)), below, above)
    return formula.choose(formula.less(tolerance, formula.minus(beyond, half)), above, below)


def linear(formula: Formula, at: Positions) -> list[Tap]:
    """Return two taps. Where both are the last entry, each has weight 1/2."""
    zero, half = formula.real(0), formula.real(0.5)
    position = formula.between(at.position, zero, formula.as_real(at.last))
    first = formula.between(formula.as_whole(position), formula.whole(0), at.last)
    second = formula.between(formula.plus(first, formula.whole(1)), formula.whole(0), at.last)
    second = formula.choose(at.copied, first, second)
    at_end = formula.equal(first, second)
    weights = [
        formula.choose(at_end, half, formula.magnitude(formula.minus(position, formula.as_real(other))))
        for other in (second, first)
    ]
    return [Tap(first, weights[0]), Tap(second, weights[1])]


def cubic(formula: Formula, at: Positions, how: Resampling) -> list[Tap]:
    """Return four taps with the weights of Keys' cubic convolution."""
    below = formula.floor(at.position)
    weights = _keys(formula, formula.minus(at.position, below), how.cubic_coefficient)
    first = formula.minus(formula.as_whole(below), formula.whole(1))
    indices = [formula.plus(first, formula.whole(number)) for number in range(len(weights))]
    bounds = (formula.whole(0), at.last)
    if how.exclude_outside:
        weights = _normalised(
            formula,
            [
                formula.choose(_is_within(formula, index, *bounds), weight, formula.real(0))
                for index, weight in zip(indices, weights, strict=True)
            ],
        )
    return [
        Tap(
            formula.choose(at.copied, at.index, formula.between(index, *bounds)),
            formula.choose(at.copied, formula.real(copy), weight),
        )
        for index, weight, copy in zip(indices, weights, COPIES, strict=True)
    ]


def _is_within(formula: Formula, index: str, first: str, last: str) -> str:
    return formula.equal(index, formula.between(index, first, last))


def _normalised(formula: Formula, weights: list[str]) -> list[str]:
    total = weights[0]
    for weight in weights[1:]:
        total = formula.plus(total, weight)
    return [formula.over(weight, total) for weight in weights]


def _keys(formula: Formula, beyond: str, coefficient: float) -> list[str]:
    """Return weights of the four entries around a position ``beyond`` (0 to 1) behind the second of them."""
    one = formula.real(1)
    before = formula.minus(one, beyond)
    distances = (formula.plus(beyond, one), formula.minus(formula.real(2), beyond))
    far = [_far(formula, distance, coefficient) for distance in distances]
    near = [near_weight(formula, distance, coefficient) for distance in (beyond, before)]
    return [far[0], *near, far[1]]


def near_weight(formula: Formula, distance: str, coefficient: float) -> str:
    """Return the weight of an entry at distance below 1: ``((a + 2) d - (a + 3)) d d + 1``, each step in float32."""
    a = np.float32(coefficient)
    grown = formula.minus(
        formula.times(formula.real(float(a + np.float32(2))), distance), formula.real(float(a + np.float32(3)))
    )
    return formula.plus(formula.times(formula.times(grown, distance), distance), formula.real(1))


def _far(formula: Formula, distance: str, coefficient: float) -> str:
    """Return the weight of an entry at distance 1 to 2: ``((a d - 5 a) d + 8 a) d - 4 a``, each step in float32."""
    a = np.float32(coefficient)
    grown = formula.minus(formula.times(formula.real(coefficient), distance), formula.real(float(np.float32(5) * a)))
    grown = formula.plus(formula.times(grown, distance), formula.real(float(np.float32(8) * a)))
    return formula.minus(formula.times(grown, distance), formula.real(float(np.float32(4) * a)))
