"""The part of a tile over which partial statistics are taken.

Zones partition the image, and so every feature map: they begin at multiples of the stride, and the last one ends where
the map does.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from exactile.geometry import Span
from exactile.plan.tiles import AxisTiles, Step, TilePlan

TO_THE_END = 1 << 40
"""Beyond all pixels, and small enough to be scaled."""

Zone = NDArray[np.int64]
"""See ``exactile.contract.statistic.ZONE``."""


def zone_of(plan: TilePlan, step: Step) -> Zone:
    """Return the zone of one tile, relative to its first pixel."""
    rows, columns = _along(plan.y, step.tile.y, step.zor.y), _along(plan.x, step.tile.x, step.zor.x)
    return np.array([*rows, *columns], np.int64)


def _along(tiles: AxisTiles, tile: Span, zone: Span) -> tuple[int, int]:
    last = zone.stop == tiles.domain.result_size
    return zone.start - tile.start, TO_THE_END if last else zone.stop - tile.start
