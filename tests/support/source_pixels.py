"""Pixels of a source as an array."""

from __future__ import annotations

import numpy as np

from exactile.geometry import Box, Span
from exactile.sources.protocol import Source


def all_pixels(source: Source) -> np.ndarray:
    """The whole image, (H, W, C)."""
    out = np.empty((source.height, source.width, source.channels), source.dtype)
    source.read(Box(Span(0, source.height), Span(0, source.width)), out)
    return out
