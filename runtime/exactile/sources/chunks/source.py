"""The base of sources that read through a chunk reader."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.geometry import Box
from exactile.sources.chunks.reader import ChunkReader
from exactile.sources.pixel_size import PixelSize
from exactile.sources.protocol import Identity, ReadCount, ReadPlan
from exactile.sources.read_request import check_read


class ChunkedSource(ABC):
    """A ``Source`` that passes reads on to ``_reader``."""

    height: int
    width: int
    channels: int
    dtype: np.dtype[Any]
    pixel_size_um: PixelSize | None
    _reader: ChunkReader

    @abstractmethod
    def _check_open(self) -> None:
        """Raise SourceError after ``close``."""

    @abstractmethod
    def identity(self) -> Identity:
        """See ``Source``."""

    @abstractmethod
    def close(self) -> None:
        """See ``Source``."""

    def cache_bytes(self, plan: ReadPlan) -> int:
        return self._reader.cache_bytes(plan)

    def decoding_bytes(self, plan: ReadPlan) -> int:
        return self._reader.decoding_bytes(plan)

    def prepare(self, plan: ReadPlan, *, cache_bytes: int) -> None:
        self._reader.prepare(plan, cache_bytes=cache_bytes)

    def read(self, box: Box, out: NDArray[Any]) -> None:
        """Read ``box``. Raises SourceError for damage, and after ``close``; ValueError if ``out`` does not fit."""
        check_read(self, box, out)
        self._check_open()
        self._reader.read(box, out)

    def count(self) -> ReadCount:
        return self._reader.count()
