"""Where engines place the pixels of a resize: they compute positions in float32, which holds few fractions exactly.

A scale such as 1/3 is rounded, and so is every position. An integer position may then come out slightly lower, and one
at which rounding to the nearest pixel changes may fall on either side, depending on the position.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from exactile.geometry import Span
from exactile_converters.geometry.reach import CoordinateMode, Interpolation

LARGEST_SIDE_PX = 1 << 21
"""Positions up to this size are checked: no image has a longer side."""


def is_held(scale: Fraction) -> bool:
    """Return whether float32 represents the scale and all positions exactly."""
    return all(side & (side - 1) == 0 for side in (scale.numerator, scale.denominator))


@lru_cache(maxsize=64)
def makes_whole_sizes(scale: Fraction) -> bool:
    """Return whether every multiple of a reducing ``scale``'s period yields the right number of pixels."""
    outputs = np.arange(1, LARGEST_SIDE_PX // scale.denominator + 1, dtype=np.int64)
    inputs = (outputs * scale.denominator).astype(np.float32)
    return bool((np.floor(inputs * np.float32(float(scale))) == outputs).all())


@lru_cache(maxsize=64)
def makes_its_sizes(given: float, scale: Fraction) -> bool:
    """Return whether engines, which compute sizes in float32, always yield as many pixels by ``given`` as ``scale``."""
    inputs = np.arange(1, LARGEST_SIDE_PX + 1, dtype=np.int64)
    made = np.floor(inputs.astype(np.float32) * np.float32(given)).astype(np.int64)
    return bool((made == inputs * scale.numerator // scale.denominator).all())


@lru_cache(maxsize=64)
def falls_short(scale: Fraction, coordinates: CoordinateMode) -> bool:
    """Return whether some position comes out below the pixel on or after which it lies."""
    if is_held(scale):
        return False
    outputs = _outputs(scale)
    exact = Interpolation(scale=scale, coordinates=coordinates, kind="nearest", rounding="floor")
    first = np.floor(_positions(outputs, scale, coordinates)).astype(np.int64)
    return bool((first < _exact(outputs, exact)).any())


@lru_cache(maxsize=64)
def picks_steadily(reach: Interpolation) -> bool:
    """Return whether nearest interpolation, in float32 as in engines, picks the same pixel of every period.

    Where the exact position is one at which rounding changes, a factor such as 1/7, which float32 cannot represent,
    selects one pixel at some positions and its neighbour at others: a tile with another origin selects another one.
    """
    if is_held(reach.scale):
        return True
    outputs = _outputs(reach.scale)
    position, half = _positions(outputs, reach.scale, reach.coordinates), np.float32(0.5)
    match reach.rounding:
        case "floor":
            picked = np.floor(position)
        case "ceil":
            picked = np.ceil(position)
        case "round_prefer_floor":
            picked = np.ceil(position - half)
        case "round_prefer_ceil":
            picked = np.floor(position + half)
    return bool((picked.astype(np.int64) == _exact(outputs, reach)).all())


def picks_clearly(reach: Interpolation) -> bool:
    """Return whether each position is at least a quarter of a pixel from where nearest interpolation changes."""
    turn = Fraction(1, 2) if reach.rounding.startswith("round") else Fraction(0)
    phases = (reach.position(output) - turn for output in range(reach.scale.numerator))
    return all(Fraction(1, 4) <= phase % 1 <= Fraction(3, 4) for phase in phases)


def _outputs(scale: Fraction) -> NDArray[np.int64]:
    return np.arange(max(2, LARGEST_SIDE_PX // scale.denominator), dtype=np.int64)


def _positions(outputs: NDArray[np.int64], scale: Fraction, coordinates: CoordinateMode) -> NDArray[np.float32]:
    given, half, factor = outputs.astype(np.float32), np.float32(0.5), np.float32(float(scale))
    match coordinates:
        case "asymmetric":
            return given / factor
        case "half_pixel":
            return (given + half) / factor - half
        case "tf_half_pixel_for_nn":
            return (given + half) / factor


def _exact(outputs: NDArray[np.int64], reach: Interpolation) -> NDArray[np.int64]:
    """Return the first pixel read for each output, without rounding errors: the same in every period."""
    enlarged, reduced = reach.scale.numerator, reach.scale.denominator
    phases = np.array([reach.needed(Span(output, output + 1)).start for output in range(enlarged)])
    return phases[outputs % enlarged] + outputs // enlarged * reduced
