"""Rows of uncompressed pixels in a file: only the needed bytes are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.geometry import Box, Span
from exactile.sources.channel_choice import ChannelCopy
from exactile.sources.positional_file import PositionalFile
from exactile.sources.sample_types import InexactSampleError

BLOCK_BYTES = 1 << 20
"""Bytes read at a time, and so the memory that a read of raw rows needs besides the caller's array."""

_DENSE = 4
"""One read of everything between is faster than one read a row if at least 1/_DENSE of it is needed."""

_CALL_BYTES = 8 << 10
"""Reading this many more bytes takes no longer than a separate read for each row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RawRows:
    """A block of pixels stored row after row, ``samples`` together for each pixel, from ``offset`` on.

    ``dtype`` has the byte order of the file.
    """

    offset: int
    width: int
    samples: int
    dtype: np.dtype[Any]

    @property
    def pixel_bytes(self) -> int:
        return self.samples * self.dtype.itemsize

    @property
    def row_bytes(self) -> int:
        return self.width * self.pixel_bytes

    @property
    def most_held_bytes(self) -> int:
        """Bytes that ``copy`` needs at most besides the caller's array."""
        return max(BLOCK_BYTES, self.row_bytes)

    def copy(self, file: PositionalFile, part: Box, channels: ChannelCopy, out: NDArray[Any]) -> None:
        """Copy ``part`` (pixels of this block) to ``out``: (part.y.length, part.x.length, channels).

        Raises DamagedDataError when the file ends too early, InexactSampleError with a place in this block.
        """
        width, pixel_bytes = part.x.length, self.pixel_bytes
        if not width or not part.y.length:
            return
        unwanted_bytes = (self.width - width) * pixel_bytes
        dense = width * _DENSE >= self.width or unwanted_bytes <= _CALL_BYTES
        read, held_px = (self._dense, self.width) if dense else (self._sparse, width)
        rows_at_a_time = max(1, BLOCK_BYTES // (held_px * pixel_bytes))
        for start in range(part.y.start, part.y.stop, rows_at_a_time):
            stop = min(part.y.stop, start + rows_at_a_time)
            block = read(file, start, stop, part.x)
            try:
                channels.copy(block, out[start - part.y.start : stop - part.y.start])
            except InexactSampleError as error:
                raise error.moved(start, part.x.start) from None

    def _dense(self, file: PositionalFile, start: int, stop: int, columns: Span) -> NDArray[Any]:
        """Return rows ``start`` to ``stop`` read at once; nothing beyond the last needed byte is read."""
        buffer, pixel_bytes = np.empty((stop - start, self.width, self.samples), self.dtype), self.pixel_bytes
        first, unwanted = columns.start * pixel_bytes, (self.width - columns.stop) * pixel_bytes
        view = buffer.reshape(-1).view(np.uint8).data
        at = self.offset + start * self.width * pixel_bytes + first
        file.read_into(at, view[first : len(view) - unwanted])
        return buffer[:, columns.start : columns.stop]

    def _sparse(self, file: PositionalFile, start: int, stop: int, columns: Span) -> NDArray[Any]:
        """Return rows ``start`` to ``stop``, one read a row."""
        buffer = np.empty((stop - start, columns.length, self.samples), self.dtype)
        view = buffer.reshape(-1).view(np.uint8).data
        wanted, row_bytes = columns.length * self.pixel_bytes, self.row_bytes
        first = self.offset + columns.start * self.pixel_bytes
        for row in range(start, stop):
            at = (row - start) * wanted
            file.read_into(first + row * row_bytes, view[at : at + wanted])
        return buffer
