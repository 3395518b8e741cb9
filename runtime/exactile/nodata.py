"""Pixels without data: those where every channel has one value, by the file's tag or as the caller says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.geometry import Box


def is_nodata(pixels: NDArray[Any], value: float) -> NDArray[np.bool_]:
    """Where all channels of ``pixels`` (H, W, C) are ``value``, (H, W); NaN is NaN."""
    if np.isnan(value):
        return np.asarray(np.isnan(pixels).all(axis=2))
    if pixels.dtype.kind in "iu" and not (float(value).is_integer() and 0 <= value <= np.iinfo(pixels.dtype).max):
        return np.zeros(pixels.shape[:2], np.bool_)
    with np.errstate(over="ignore"):
        wanted = np.asarray(value).astype(pixels.dtype)
    return np.asarray((pixels == wanted).all(axis=2))


@dataclass(frozen=True, slots=True, kw_only=True)
class Nodata:
    """Background is where there is no data: ``value`` in every channel."""

    value: float
    label: int = 0

    def is_empty(self, box: Box, pixels: NDArray[Any]) -> bool:  # noqa: ARG002 -- the seam's signature
        return bool(is_nodata(pixels, self.value).all())

    def describe(self) -> dict[str, Any]:
        return {"nodata": str(self.value), "label": self.label}
