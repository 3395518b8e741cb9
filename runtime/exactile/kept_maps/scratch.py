"""A kept map in an unnamed file: it is gone when it is closed, however the process ends."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.errors import SinkError
from exactile.geometry import Span

LEFT_FREE_BYTES = 1 << 30
"""Bytes of a disk that are left to others."""


def free_bytes(folder: Path) -> int:
    """Return the bytes that may be used of the disk of ``folder``."""
    try:
        return max(0, shutil.disk_usage(folder).free - LEFT_FREE_BYTES)
    except OSError:
        return 0


STRIP_COLUMNS = 64
"""About so many columns are stored together in a file: their rows are long enough to be copied at the
speed of memory.
"""

BLOCK_BYTES = 1 << 20
"""Bytes that are read or written at a time: some rows of a strip."""


class ScratchMap:
    """An array of ``shape`` in a file in ``folder``; ``rows`` and ``columns`` are its dimensions of these.

    The file holds strips of columns, one after the other, and each of them row by row. A row of a strip is what lies
    before rows and columns (usually channels), then its columns and the rest: so some rows of a strip are one piece of
    the file, whatever the number of channels. One thread may read while another writes elsewhere in it. Raises
    SinkError if there is no room for it.
    """

    def __init__(self, shape: tuple[int, ...], dtype: str, *, rows: int, columns: int, folder: Path) -> None:
        before = range(min(rows, columns))
        behind = (dim for dim in range(len(before), len(shape)) if dim not in {rows, columns})
        self._order = (rows, *before, columns, *behind)
        self._in_row = len(before)
        self._dtype = np.dtype(dtype)
        self._height, self._width = shape[rows], shape[columns]
        total = prod(shape) * self._dtype.itemsize
        self._column_bytes = total // max(1, self._height * self._width)
        self._written = False
        self.lay_out([Span(0, self._width)])
        file = None
        try:
            file = self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 -- closed by close
            os.posix_fallocate(file.fileno(), 0, max(1, total))
        except OSError as error:
            if file is not None:
                file.close()
            raise SinkError(
                f"{folder} has no room for {total} bytes of maps that are kept between passes ({error.strerror}); what "
                "to do: --scratch another folder, or more --memory"
            ) from error

    def lay_out(self, zones: Sequence[Span]) -> None:
        """Align strips with ``zones``, which partition the columns: then whole strips are written.

        Call this before anything is written; writing parts of strips is correct, but slow.
        """
        assert not self._written, "a map that was written cannot be laid out again"
        bounds = {0, self._width}
        for zone in zones:
            count = max(1, round(zone.length / STRIP_COLUMNS))
            bounds.update(zone.start + index * zone.length // count for index in range(count))
        self._bounds = sorted(bounds)

    def read(self, rows: Span, columns: Span, out: NDArray[Any]) -> None:
        """Fill ``out`` with the part at ``rows`` and ``columns``."""
        part, memory = out.transpose(self._order), self._memory(rows)
        for block in self._blocks(rows, columns):
            held = self._shaped(memory, block, part)
            self._whole(os.preadv, held, block.offset)
            part[block.in_part(self._in_row)] = held[block.in_file(self._in_row)]

    def write(self, rows: Span, columns: Span, part: NDArray[Any]) -> None:
        """Write ``part`` at ``rows`` and ``columns``."""
        self._written = True
        part, memory = part.transpose(self._order), self._memory(rows)
        for block in self._blocks(rows, columns):
            held = self._shaped(memory, block, part)
            if block.inside.length < block.strip.length:
                self._whole(os.preadv, held, block.offset)
            held[block.in_file(self._in_row)] = part[block.in_part(self._in_row)]
            self._whole(os.pwritev, held, block.offset)

    def close(self) -> None:
        """Free the disk space."""
        self._file.close()

    def _blocks(self, rows: Span, columns: Span) -> Iterator[_Block]:
        """Yield contiguous pieces of the file, of all strips that hold some of ``columns``."""
        for bounds in pairwise(self._bounds):
            strip = Span(*bounds)
            inside = strip.intersect(columns)
            if not inside.length:
                continue
            row_bytes = strip.length * self._column_bytes
            count = max(1, BLOCK_BYTES // max(1, row_bytes))
            begin = strip.start * self._height * self._column_bytes
            for start in range(rows.start, rows.stop, count):
                some = Span(start, min(rows.stop, start + count))
                yield _Block(
                    offset=begin + start * row_bytes,
                    strip=strip,
                    rows=some.shift(-rows.start),
                    inside=inside,
                    first_column=columns.start,
                )

    def _memory(self, rows: Span) -> NDArray[np.uint8]:
        """Return memory for a block, which is reused."""
        row_bytes = max(stop - start for start, stop in pairwise(self._bounds)) * self._column_bytes
        return np.empty(max(row_bytes, min(BLOCK_BYTES, rows.length * row_bytes)), np.uint8)

    def _shaped(self, memory: NDArray[np.uint8], block: _Block, part: NDArray[Any]) -> NDArray[Any]:
        """Return ``memory`` as a block of the file; ``part`` is in the order of the file."""
        behind = self._in_row + 1
        shape = (block.rows.length, *part.shape[1:behind], block.strip.length, *part.shape[behind + 1 :])
        return memory[: prod(shape) * self._dtype.itemsize].view(self._dtype).reshape(shape)

    def _whole(self, transfer: Any, array: NDArray[Any], offset: int) -> None:
        left = array.reshape(-1).view(np.uint8).data
        while left:
            try:
                done = transfer(self._file.fileno(), [left], offset)
            except OSError as error:
                raise SinkError(f"the maps that are kept between passes: {error.strerror}") from error
            if done == 0:
                raise SinkError("the maps that are kept between passes are cut short")
            left, offset = left[done:], offset + done


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    """Rows of a strip, from ``offset`` in the file.

    ``rows`` of the part that is read or written, whose first column is ``first_column`` of the map; ``inside`` are the
    columns of the ``strip`` that the part has.
    """

    offset: int
    strip: Span
    rows: Span
    inside: Span
    first_column: int

    def in_part(self, in_row: int) -> tuple[slice, ...]:
        columns = self.inside.shift(-self.first_column)
        return slice(self.rows.start, self.rows.stop), *[slice(None)] * in_row, slice(columns.start, columns.stop)

    def in_file(self, in_row: int) -> tuple[slice, ...]:
        columns = self.inside.shift(-self.strip.start)
        return slice(None), *[slice(None)] * in_row, slice(columns.start, columns.stop)
