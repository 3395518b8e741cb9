"""What lies outside the image."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from exactile.geometry import Span

Border = Literal["model", "reflect", "edge", "constant"]
BORDERS: tuple[Border, ...] = get_args(Border)

OUTSIDE = -1
"""Index of a pixel that has no counterpart in the image: a constant border."""


def image_indices(span: Span, size: int, border: Border) -> NDArray[np.int64]:
    """Return for each position of ``span`` the image index in [0, size) that stands there, or OUTSIDE.

    Equal to ``numpy.pad`` of the image with the mode of the same name. With the ``model`` border only the padding up to
    an accepted size lies outside; it is reflected, as in Majurski & Bajcsy (2021).
    """
    positions = np.arange(span.start, span.stop, dtype=np.int64)
    match border:
        case "edge":
            return np.clip(positions, 0, size - 1)
        case "constant":
            return np.where((positions >= 0) & (positions < size), positions, OUTSIDE)
        case "model" | "reflect":
            if size == 1:
                return np.zeros_like(positions)
            folded = np.mod(positions, 2 * (size - 1))
            return np.where(folded < size, folded, 2 * (size - 1) - folded)


def needed_span(span: Span, size: int, border: Border) -> Span:
    """Return the smallest span of the image that holds every pixel standing in ``span``."""
    if 0 <= span.start < span.stop <= size:
        return span  # the common case: a plan can have millions of spans
    indices = image_indices(span, size, border)
    inside = indices[indices != OUTSIDE]
    if inside.size == 0:
        return Span(0, 0)
    return Span(int(inside.min()), int(inside.max()) + 1)
