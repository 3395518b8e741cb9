"""Pixels from a .npy file, read in place."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from exactile.errors import SourceError
from exactile.geometry import Box
from exactile.sources.axis_order import order_axes
from exactile.sources.channel_choice import ChannelCopy, choose_channels
from exactile.sources.identity import file_identity, image_identity
from exactile.sources.image_choice import ImageChoice
from exactile.sources.positional_file import DamagedDataError, PositionalFile
from exactile.sources.protocol import Identity, ReadCount, ReadPlan
from exactile.sources.raw_rows import RawRows
from exactile.sources.read_request import check_read
from exactile.sources.sample_types import InexactSampleError, delivered_type, native_sample_type

_HEADER_READERS = {
    (1, 0): npy_format.read_array_header_1_0,
    (2, 0): npy_format.read_array_header_2_0,
    # Version 3 differs in the encoding of field names alone, and records with fields are refused anyway.
    (3, 0): npy_format.read_array_header_2_0,
}


class NpySource:
    """An array stored by ``numpy.save``: (H, W), (H, W, C) or (C, H, W); samples of ``sample_types``.

    Either byte order, C and Fortran order. Only the rows and columns wanted are read.
    Raises SourceError for a file that is damaged, truncated or of another kind,
    OptionError for unknown ``axes``, ChannelError for ``channels`` that are not there.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, axes: str | None = None, channels: Sequence[int] | None = None
    ) -> None:
        self.pixel_size_um: tuple[float, float] | None = None
        self.stored_path = Path(path)
        self._choice = ImageChoice(axes=axes)
        self._file = PositionalFile(path)
        try:
            self._lay_out(axes, channels)
        except BaseException:
            self._file.close()
            raise

    def _lay_out(self, axes: str | None, channels: Sequence[int] | None) -> None:
        name = self._file.name
        shape, stored, self._transposed = read_npy_header(self._file)
        order = order_axes(shape, axes, name)
        self.stored_dtype = native_sample_type(stored, name)
        self.dtype = delivered_type(self.stored_dtype)
        self.height = order.height
        self.width = order.width
        chosen = choose_channels(channels, order.channels, name)
        self.channels = len(chosen)
        self._chosen = chosen
        offset = self._file.stream.tell()
        plane_bytes = order.height * order.width * stored.itemsize
        needed_bytes = offset + plane_bytes * order.channels
        if self._file.size_bytes < needed_bytes:
            raise SourceError(
                f"{name}: is truncated: an array of shape {shape} and type {stored.name} needs {needed_bytes} bytes,"
                f" but the file has {self._file.size_bytes}; copy it again"
            )
        everywhere = tuple(range(len(chosen)))
        # In Fortran order a file holds the transposed array: columns instead of rows, and channels at the other end.
        row_px = order.height if self._transposed else order.width
        if order.planar == self._transposed:
            rows = RawRows(offset=offset, width=row_px, samples=order.channels, dtype=stored)
            self._planes = [(rows, ChannelCopy(chosen, everywhere))]
            return
        self._planes = [
            (
                RawRows(offset=offset + channel * plane_bytes, width=row_px, samples=1, dtype=stored),
                ChannelCopy((0,), (target,)),
            )
            for target, channel in enumerate(chosen)
        ]

    def cache_bytes(self, plan: ReadPlan) -> int:  # noqa: ARG002 - nothing is decoded, so nothing is kept
        return 0

    def decoding_bytes(self, plan: ReadPlan) -> int:  # noqa: ARG002 - whatever is read
        return max(rows.most_held_bytes for rows, _ in self._planes)

    def prepare(self, plan: ReadPlan, *, cache_bytes: int) -> None:
        """Nothing to prepare: rows are read on demand."""

    def read(self, box: Box, out: NDArray[Any]) -> None:
        check_read(self, box, out)
        try:
            for rows, copy in self._planes:
                if self._transposed:
                    rows.copy(self._file, Box(box.x, box.y), copy, out.transpose(1, 0, 2))
                else:
                    rows.copy(self._file, box, copy, out)
        except InexactSampleError as error:
            raise SourceError(f"{self._file.name}: {error.transposed() if self._transposed else error}") from error
        except DamagedDataError as error:
            raise SourceError(f"{self._file.name}: cannot read {box}: {error}") from error

    def count(self) -> ReadCount:
        return ReadCount(chunks_decoded=0, chunks_stored=0)

    def identity(self) -> Identity:
        return image_identity("npy", self, self._choice, self._chosen) | file_identity(self._file)

    def close(self) -> None:
        self._file.close()


def read_npy_header(file: PositionalFile) -> tuple[tuple[int, ...], np.dtype[Any], bool]:
    """Return shape, dtype and whether the order is Fortran's; leave the stream at the first sample."""
    try:
        version = npy_format.read_magic(file.stream)
        shape, fortran, dtype = _HEADER_READERS[version](file.stream)
    # The header is a literal of Python; what a damaged one raises is not documented.
    except Exception as error:
        raise SourceError(f"{file.name}: is not a readable .npy file: {error}") from error
    if dtype.hasobject:
        raise SourceError(f"{file.name}: holds Python objects, which are never loaded; save an array of numbers")
    return shape, dtype, fortran and len(shape) > 1
