"""The result as a NumPy ``.npy`` file."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.geometry import Box
from exactile.sinks.blocks import pixel_bytes, plane_count
from exactile.sinks.files.part_file import PartFile
from exactile.sinks.files.sink import FileSink
from exactile.sinks.protocol import ResultSpec, WritePlan
from exactile.sinks.raster_rows import write_rows


class NpySink(FileSink[PartFile]):
    """Writes ``.npy``: ``(H, W)`` or ``(C, H, W)``, C order.

    Written by position rather than through a memory map, whose pages would count as this process's memory.
    """

    _data_offset_bytes = 0
    _plane_bytes = 0

    def buffer_bytes(self, spec: ResultSpec, plan: WritePlan) -> int:
        """Return the bytes of one contiguous copy of one plane of the largest box."""
        rows = max((span.length for span in plan.rows), default=0)
        columns = max((span.length for span in plan.columns), default=0)
        return rows * columns * pixel_bytes(spec) // plane_count(spec)

    def _open_part(self, spec: ResultSpec) -> PartFile:  # noqa: ARG002 -- the seam's signature
        return PartFile(self.path, overwrite=self._overwrite)

    def _start(self, part: PartFile, spec: ResultSpec) -> None:
        header = npy_header(spec)
        self._data_offset_bytes = len(header)
        self._plane_bytes = spec.height * spec.width * np.dtype(spec.dtype).itemsize
        part.preallocate(len(header) + plane_count(spec) * self._plane_bytes)
        part.write_at(header, 0)

    def _put(self, part: PartFile, box: Box, planes: NDArray[Any]) -> None:
        assert self._spec is not None
        for number, plane in enumerate(planes):
            offset_bytes = self._data_offset_bytes + number * self._plane_bytes
            write_rows(part, box, plane, width=self._spec.width, offset_bytes=offset_bytes)

    def _complete(self, part: PartFile) -> None:
        """Nothing is held back."""

    def _release(self) -> None:
        """There are neither threads nor buffers."""


def npy_header(spec: ResultSpec) -> bytes:
    """Return the header of format version 1.0, padded so that the pixels start at a multiple of 64 bytes."""
    stream = io.BytesIO()
    description = np.lib.format.dtype_to_descr(np.dtype(spec.dtype))
    np.lib.format.write_array_header_1_0(stream, {"descr": description, "fortran_order": False, "shape": spec.shape})
    return stream.getvalue()
