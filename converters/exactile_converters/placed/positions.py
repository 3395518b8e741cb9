"""Compute the position in the whole operand of each entry of a piece, in float32, with ONNX Runtime's rounding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from exactile_converters.placed.formula import Formula
from exactile_converters.placed.place import Place
from exactile_converters.placed.resampling import Resampling


@dataclass(frozen=True, slots=True, kw_only=True)
class Positions:
    """Names of the values that determine taps and weights of one axis; n is the length of the piece."""

    index: str
    """(n,) int64: the index in the whole result."""
    position: str
    """(n,) float32: its position in the whole operand, in pixels; not clamped."""
    scale: str
    """(1,) float32: result size divided by operand size."""
    last: str
    """(1,) int64: the last index of the whole operand."""
    copied: str
    """(1,) bool: ONNX Runtime copies along this axis, whatever the scale."""
    outside: str
    """(n,) bool: these entries are the extrapolation value; empty where the coordinate mode has none."""


def positions(formula: Formula, place: Place, places: Sequence[Place], how: Resampling) -> Positions:
    """Compute positions along the axis of ``place`` by the formula of the coordinate mode; the index if not resized.

    ``places`` are all axes of the node. The order of operations is that of ONNX Runtime: in float32 ``x / s`` and ``x *
    (1 / s)`` do not pick the same pixel.
    """
    copied = _copied(formula, [place] if how.antialias else places)
    index = formula.plus(formula.counted(place.count), place.begin)
    real = formula.as_real(index)
    lengths = (formula.as_real(place.source_size), formula.as_real(place.result_size))
    scale = formula.over(lengths[1], lengths[0]) if place.scale is None else formula.real(place.scale)
    kept = copied
    if place.scale is None or np.float32(place.scale) == 1:
        kept = formula.either(copied, formula.equal(scale, formula.real(1)))
    found = formula.choose(kept, real, _moved(formula, how.coordinates, real, scale, *lengths))
    last = formula.minus(place.source_size, formula.whole(1))
    outside = ""
    if how.coordinates == "tf_crop_and_resize":  # float32 may place the last entry beyond the last one of the operand
        outside = formula.less(formula.as_real(last), found)
    return Positions(index=index, position=found, scale=scale, last=last, copied=copied, outside=outside)


def _copied(formula: Formula, places: Sequence[Place]) -> str:
    """Return whether axes are copied: all of them if all keep their size; an antialiased Resize decides for each."""
    found = ""
    for place in places:
        same = formula.equal(place.source_size, place.result_size)
        found = formula.both(found, same) if found else same
    return found


def _moved(formula: Formula, mode: str, index: str, scale: str, source_size: str, result_size: str) -> str:
    half, one, zero = formula.real(0.5), formula.real(1), formula.real(0)
    match mode:
        case "asymmetric":
            return formula.over(index, scale)
        case "tf_half_pixel_for_nn":
            return formula.over(formula.plus(index, half), scale)
        case "half_pixel":
            return formula.minus(formula.over(formula.plus(index, half), scale), half)
        case "pytorch_half_pixel":
            moved = formula.minus(formula.over(formula.plus(index, half), scale), half)
            return formula.choose(formula.less(one, result_size), moved, zero)
        case "align_corners" | "tf_crop_and_resize":
            grown = formula.times(index, formula.minus(source_size, one))
            moved = formula.over(grown, formula.minus(result_size, one))
            single = zero if mode == "align_corners" else formula.times(half, formula.minus(source_size, one))
            return formula.choose(formula.equal(result_size, one), single, moved)
        case "half_pixel_symmetric":
            return _symmetric(formula, index, scale, source_size, result_size)
    raise ValueError(f"coordinate mode {mode} is not known")


def _symmetric(formula: Formula, index: str, scale: str, source_size: str, result_size: str) -> str:
    """Shift so that rounding to whole pixels crops equally at both ends; the last steps are in float64."""
    adjustment = formula.over(result_size, formula.times(scale, source_size))
    center = formula.over(source_size, formula.real(2))
    offset = formula.as_double(formula.times(center, formula.minus(formula.real(1), adjustment)))
    half = formula.as_double(formula.real(0.5))
    moved = formula.over(formula.plus(formula.as_double(index), half), formula.as_double(scale))
    return formula.as_real(formula.minus(formula.plus(offset, moved), half))
