"""A weight map that makes a blending peer as exact as it goes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LEAST = 1e-12
"""Not 0: at the image's edges only one window contributes, and peers divide by the sum of weights."""


def nearly_zero_edges(side: int, halo: int) -> NDArray[np.float32]:
    """Return (side, side): 1 in the middle, next to nothing within ``halo`` of an edge; a product of one axis each."""
    line = np.full(side, LEAST, np.float32)
    line[halo : side - halo] = 1
    return np.outer(line, line)
