"""Compute the least heights of the first and the last strip."""

from __future__ import annotations

from exactile_converters.strips.demand import Demand
from exactile_converters.strips.frontier import Frontiers, Reading
from exactile_converters.strips.refusal import StripError

MOST_STRIDES = 1 << 14


def startup_rows(frontiers: Frontiers, need: Demand) -> int:
    """Return the least ``first`` strip: every map has a row, and what later strips read lies below the padding."""
    for strides in range(1, MOST_STRIDES):
        rows = strides * frontiers.stride
        if all(
            frontiers.known(name, rows) - need.before(name) >= (1 if need.before(name) == 0 else 0)
            and frontiers.known(name, rows) >= 1
            for name in frontiers.maps()
        ) and all(_reflects_inside(frontiers, reading, rows) for reading in _readings(frontiers)):
            return rows
    raise StripError("the first strip would be too high")


def least_last_rows(frontiers: Frontiers) -> int:
    """Return the least ``last`` strip: every map gains a row, and reflection finds what it reflects."""
    reference = frontiers.reference
    for strides in range(MOST_STRIDES):
        rows = strides * frontiers.stride + frontiers.remainder
        height = reference + rows
        if (
            rows
            and all(frontiers.size(name, height) > frontiers.known(name, reference) for name in frontiers.maps())
            and all(
                frontiers.size(reading.name, height) - frontiers.known(reading.name, reference)
                > reading.flow.reflected["y"][1]
                for reading in _readings(frontiers)
                if "y" in reading.flow.reflected
            )
        ):
            return rows
    raise StripError("the last strip would be too high")


def _readings(frontiers: Frontiers) -> list[Reading]:
    return [reading for readings in frontiers.readings.values() for reading in readings]


def _reflects_inside(frontiers: Frontiers, reading: Reading, rows: int) -> bool:
    if "y" not in reading.flow.reflected:
        return True
    return frontiers.known(reading.name, rows) > reading.flow.reflected["y"][0]
