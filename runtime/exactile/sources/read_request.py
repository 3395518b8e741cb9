"""Checks of every source before it reads: mistakes of the caller, not of the image."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from exactile.geometry import Box
from exactile.sources.protocol import Source


def check_read(source: Source, box: Box, out: NDArray[Any]) -> None:
    """Raise ValueError if ``box`` leaves the image or ``out`` does not fit it."""
    if box.y.start < 0 or box.x.start < 0 or box.y.stop > source.height or box.x.stop > source.width:
        raise ValueError(f"{box} is not within the image of {source.height} x {source.width} pixels")
    if out.shape != (*box.shape, source.channels):
        raise ValueError(f"out has shape {out.shape}, but {(*box.shape, source.channels)} is read")
    if out.dtype != source.dtype:
        raise ValueError(f"out has samples of {out.dtype}, but the image of {source.dtype}")
