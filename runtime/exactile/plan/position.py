"""The position of a tile or strip in the image as the network sees it, an input of graphs with placed operators."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from exactile.geometry import Box
from exactile.plan.tiles import AxisDomain

Position = NDArray[np.int64]
"""(first row, height of the whole, first column, width of the whole), in pixels; see ``exactile.contract.POSITION``."""


def position_of(y: AxisDomain, x: AxisDomain, tile: Box) -> Position:
    """Return the position of ``tile``, in image pixels; what borders add to the image counts as part of the whole."""
    return np.array(
        [tile.y.start + y.image_start, y.size, tile.x.start + x.image_start, x.size],
        np.int64,
    )
