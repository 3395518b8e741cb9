"""Describe in words which image sizes a network accepts as they are."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exactile.geometry import AxisGeometry, Geometry

EXTENDED = "others are reflected at the bottom and right up to the next one, and cropped again"


def sizes_in_words(geometry: Geometry) -> str:
    """Return the image sizes that the network accepts as they are, and what happens to others."""
    y, x = (_taken(axis) for axis in (geometry.y, geometry.x))
    taken = y if y == x else f"{y} high, {x} wide"
    all_taken = all(len(axis.others or ()) == axis.stride - 1 for axis in (geometry.y, geometry.x))
    text = taken if all_taken else f"{taken}; {EXTENDED}"
    reason = next((o.one_pass for axis in (geometry.y, geometry.x) for o in axis.others or () if o.one_pass), "")
    return f"{text} ({reason})" if reason else text


def remainders(axis: AxisGeometry) -> tuple[list[int], list[int]]:
    """Return the accepted sizes that can be cut, and those that cannot."""
    others = axis.others or ()
    cut = [axis.remainder, *(other.remainder for other in others if not other.one_pass)]
    return sorted(cut), [other.remainder for other in others if other.one_pass]


def _taken(axis: AxisGeometry) -> str:
    cut, one_piece = remainders(axis)
    if len(cut) == axis.stride:
        return "any"
    text = f"multiples of {axis.stride}" if cut == [0] else f"{_ranges(cut)} + n*{axis.stride}"
    if one_piece:
        text += f", and in one piece only {_ranges(one_piece)} + n*{axis.stride}"
    return text


def _ranges(numbers: Sequence[int]) -> str:
    """Return ``0, 3 to 5``."""
    found = []
    for _, group in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0]):
        run = [number for _, number in group]
        found.append(str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}")
    return ", ".join(found)
