"""An image that a pass does not read, because it begins at kept maps."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.geometry import Box
from exactile.sources.protocol import Identity, ReadCount, ReadPlan, Source


class Unread:
    """Implements ``Source``: as large as ``source``, without pixels."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.height, self.width, self.channels = source.height, source.width, source.channels
        self.dtype: np.dtype[Any] = source.dtype
        self.pixel_size_um = source.pixel_size_um

    def cache_bytes(self, plan: ReadPlan) -> int:  # noqa: ARG002 -- the seam's signature
        """Nothing is cached."""
        return 0

    def prepare(self, plan: ReadPlan, *, cache_bytes: int) -> None:
        """Nothing to prepare."""

    def read(self, box: Box, out: NDArray[Any]) -> None:
        """Nothing is copied."""

    def count(self) -> ReadCount:
        """Return what was read of the image before."""
        return self._source.count()

    def identity(self) -> Identity:
        return self._source.identity()

    def close(self) -> None:
        """Nothing to close: the source is closed by its owner."""
