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

    In the file, what lies before rows and columns comes first (channels, most often), then rows, columns and the rest.
    Raises SinkError where there is no room for it.
    """

    def __init__(self, shape: tuple[int, ...], dtype: str, *, rows: int, columns: int, folder: Path) -> None:
        before = min(rows, columns)
        behind = (dim for dim in range(before, len(shape)) if dim not in {rows, columns})
        self._order = (*range(before), rows, columns, *behind)
        self._before = before
        self._dtype = np.dtype(dtype)
        self._height, self._width, self._planes = shape[rows], shape[columns], prod(shape[:before])
        total = prod(shape) * self._dtype.itemsize
        self._pixel_bytes = total // max(1, self._planes * self._height * self._width)
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

    def read(self, rows: Span, columns: Span, out: NDArray[Any]) -> None:
        """Fill ``out``, C-contiguous, with the part that lies there."""
        for number, plane in enumerate(self._planes_of(out)):
            straight = plane.flags.c_contiguous
            found = plane if straight else np.empty_like(plane, order="C")
            for offset, piece in self._pieces(number, rows, columns, found):
                self._whole(os.preadv, piece, offset)
            if not straight:
                plane[...] = found

    def write(self, rows: Span, columns: Span, part: NDArray[Any]) -> None:
        for number, plane in enumerate(self._planes_of(part)):
            for offset, piece in self._pieces(number, rows, columns, np.ascontiguousarray(plane)):
                self._whole(os.pwritev, piece, offset)

    def close(self) -> None:
        """Give the room back."""
        self._file.close()

    def _planes_of(self, part: NDArray[Any]) -> Iterator[NDArray[Any]]:
        """Views of (rows, columns, ...), in the order of the file."""
        ordered = part.transpose(self._order)
        for index in np.ndindex(ordered.shape[: self._before]):
            yield ordered[index]

    def _pieces(self, plane: int, rows: Span, columns: Span, array: NDArray[Any]) -> Iterator[tuple[int, NDArray[Any]]]:
        """What lies together in the file, and where: all rows of a plane, or one."""
        line = self._width * self._pixel_bytes
        first = (plane * self._height + rows.start) * line
        if columns.length == self._width:
            yield first, array
            return
        first += columns.start * self._pixel_bytes
        for row in range(rows.length):
            yield first + row * line, array[row]

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
