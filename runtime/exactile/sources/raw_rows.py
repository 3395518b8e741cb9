"""Rows of uncompressed pixels in a file: only the bytes that are wanted are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.geometry import Box
from exactile.sources.channel_choice import ChannelCopy
from exactile.sources.positional_file import PositionalFile
from exactile.sources.sample_types import InexactSampleError

BLOCK_BYTES = 1 << 20
"""Bytes read at a time, and so the memory that a read of raw rows needs beside the caller's array."""

_DENSE = 4
"""One read of everything between is quicker than one read a row when at least 1/_DENSE of it is wanted."""

_CALL_BYTES = 8 << 10
"""To read so many bytes more takes no longer than a read of its own for each row."""


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
        """What ``copy`` needs at most beside the caller's array."""
        return max(BLOCK_BYTES, self.row_bytes)

    def copy(self, file: PositionalFile, part: Box, channels: ChannelCopy, out: NDArray[Any]) -> None:
        """Copy ``part`` (pixels of this block) to ``out``: (part.y.length, part.x.length, channels).

        Raises DamagedDataError when the file ends too early, InexactSampleError with a place in this block.
        """
        if part.area == 0:
            return
        unwanted_bytes = (self.width - part.x.length) * self.pixel_bytes
        dense = part.x.length * _DENSE >= self.width or unwanted_bytes <= _CALL_BYTES
        held_row_bytes = self.row_bytes if dense else part.x.length * self.pixel_bytes
        rows_at_a_time = max(1, BLOCK_BYTES // held_row_bytes)
        for start in range(part.y.start, part.y.stop, rows_at_a_time):
            stop = min(part.y.stop, start + rows_at_a_time)
            block = self._dense(file, start, stop, part) if dense else self._sparse(file, start, stop, part)
            try:
                channels.copy(block, out[start - part.y.start : stop - part.y.start])
            except InexactSampleError as error:
                raise error.moved(start, part.x.start) from None

    def _dense(self, file: PositionalFile, start: int, stop: int, part: Box) -> NDArray[Any]:
        """Rows ``start`` to ``stop`` read at once; nothing beyond the last wanted byte is touched."""
        buffer = np.empty((stop - start, self.width, self.samples), self.dtype)
        unwanted = (self.width - part.x.stop) * self.pixel_bytes
        first = part.x.start * self.pixel_bytes
        view = buffer.reshape(-1).view(np.uint8).data
        file.read_into(self.offset + start * self.row_bytes + first, view[first : len(view) - unwanted])
        return buffer[:, part.x.start : part.x.stop]

    def _sparse(self, file: PositionalFile, start: int, stop: int, part: Box) -> NDArray[Any]:
        """Rows ``start`` to ``stop``, one read a row."""
        buffer = np.empty((stop - start, part.x.length, self.samples), self.dtype)
        view = buffer.reshape(-1).view(np.uint8).data
        wanted = part.x.length * self.pixel_bytes
        first = self.offset + part.x.start * self.pixel_bytes
        for row in range(start, stop):
            at = (row - start) * wanted
            file.read_into(first + row * self.row_bytes, view[at : at + wanted])
        return buffer
