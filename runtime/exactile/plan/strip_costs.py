"""Costs of strips of usual heights."""

from __future__ import annotations

from dataclasses import dataclass

from exactile.contract import StripModel
from exactile.geometry import Geometry, round_up

USUAL_STRIPS_PX = (64, 128, 256, 512)
USUAL_WIDTHS_PX = (4096, 20_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class StripCost:
    """Strips of ``rows`` rows: predicted time relative to a whole pass, and memory of one at ``width`` columns.

    ``memory_bytes`` includes one inference and both sets of carries, ``carry_bytes`` one set of carries.
    """

    rows: int
    width: int
    passes: float
    memory_bytes: int
    carry_bytes: int


def strip_costs(geometry: Geometry, strips: StripModel) -> tuple[StripCost, ...]:
    """Return the usual strip heights and widths, rounded up to accepted sizes."""
    found = []
    for width in dict.fromkeys(geometry.x.accepted_size(width) for width in USUAL_WIDTHS_PX):
        for rows in dict.fromkeys(round_up(rows, geometry.y.stride) for rows in USUAL_STRIPS_PX):
            carry_bytes = strips.carry_bytes(width)
            activations = strips.graphs["body"].memory.activation_bytes(rows, width)
            found.append(
                StripCost(
                    rows=rows,
                    width=width,
                    passes=strips.passes(rows),
                    memory_bytes=activations + 2 * carry_bytes,
                    carry_bytes=carry_bytes,
                )
            )
    return tuple(found)
