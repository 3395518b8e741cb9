"""A kept map in a file without a name: it is gone when it is closed, however the process ends."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.errors import SinkError
from exactile.geometry import Span

LEFT_FREE_BYTES = 1 << 30
"""Of a disk, this is left to others."""


def free_bytes(folder: Path) -> int:
    """What may be taken of the disk of ``folder``."""
    try:
        return max(0, shutil.disk_usage(folder).free - LEFT_FREE_BYTES)
    except OSError:
        return 0


class ScratchMap:
    """An array of ``shape`` in a file in ``folder``; ``rows`` and ``columns`` are its dimensions of these.

    Raises SinkError where there is no room for it.
    """

    def __init__(self, shape: tuple[int, ...], dtype: str, *, rows: int, columns: int, folder: Path) -> None:
        self._order = (rows, *(dim for dim in range(len(shape)) if dim not in {rows, columns}), columns)
        self._back = tuple(self._order.index(dim) for dim in range(len(shape)))
        self._width = shape[columns]
        self._between = prod(shape) // (shape[rows] * shape[columns])
        self._dtype = np.dtype(dtype)
        total = prod(shape) * self._dtype.itemsize
        try:
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 -- closed by close
            os.posix_fallocate(self._file.fileno(), 0, max(1, total))
        except OSError as error:
            raise SinkError(
                f"{folder} has no room for {total} bytes of maps that are kept between passes ({error.strerror}); what "
                "to do: --scratch another folder, or more --memory"
            ) from error

    def read(self, rows: Span, columns: Span, shape: tuple[int, ...]) -> NDArray[Any]:
        """The part of ``shape`` that lies there, contiguous."""
        found = np.empty((rows.length, self._between, columns.length), self._dtype)
        for offset, part in self._parts(rows, columns, found):
            self._whole(os.preadv, part, offset)
        ordered = found.reshape([shape[dim] for dim in self._order])
        return np.ascontiguousarray(ordered.transpose(self._back))

    def write(self, rows: Span, columns: Span, part: NDArray[Any]) -> None:
        ordered = np.ascontiguousarray(part.transpose(self._order)).reshape(rows.length, self._between, columns.length)
        for offset, piece in self._parts(rows, columns, ordered):
            self._whole(os.pwritev, piece, offset)

    def close(self) -> None:
        """Give the room back."""
        self._file.close()

    def _parts(self, rows: Span, columns: Span, array: NDArray[Any]) -> Iterator[tuple[int, NDArray[Any]]]:
        """Pieces that lie together in the file, and where: all rows, or one row of one channel each."""
        item, line = self._dtype.itemsize, self._between * self._width
        if columns.length == self._width:
            yield rows.start * line * item, array
            return
        for row in range(rows.length):
            for between in range(self._between):
                place = (rows.start + row) * line + between * self._width + columns.start
                yield place * item, array[row, between]

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
