"""The first columns of an image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.geometry import Box
from exactile.sources.protocol import Identity, ReadCount, ReadPlan, Source


class Corner:
    """Implements ``Source``: the first ``width`` columns of ``source``, which its owner closes."""

    def __init__(self, source: Source, width: int) -> None:
        self._source = source
        self.height, self.width, self.channels = source.height, min(width, source.width), source.channels
        self.dtype: np.dtype[Any] = source.dtype
        self.pixel_size_um = source.pixel_size_um

    def cache_bytes(self, plan: ReadPlan) -> int:
        return self._source.cache_bytes(plan)

    def prepare(self, plan: ReadPlan, *, cache_bytes: int) -> None:
        self._source.prepare(plan, cache_bytes=cache_bytes)

    def read(self, box: Box, out: NDArray[Any]) -> None:
        self._source.read(box, out)

    def count(self) -> ReadCount:
        return self._source.count()

    def identity(self) -> Identity:
        return self._source.identity()

    def close(self) -> None:
        """Nothing to close: the source is closed by its owner."""
