"""Pixels of a box in a file that holds a plane row by row."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.geometry import Box
from exactile.sinks.files.part_file import PartFile


def write_rows(part: PartFile, box: Box, plane: NDArray[Any], *, width: int, offset_bytes: int = 0) -> None:
    """Write ``plane`` (H, W), the pixels of ``box``, into rows of ``width`` pixels from ``offset_bytes`` on."""
    row_bytes, stride_bytes = box.x.length * plane.itemsize, width * plane.itemsize
    first_bytes = offset_bytes + box.y.start * stride_bytes + box.x.start * plane.itemsize
    pixels = np.ascontiguousarray(plane).data.cast("B")
    if row_bytes == stride_bytes:
        part.write_at(pixels, first_bytes)
    else:
        part.write_rows_at(pixels, first_bytes, row_bytes=row_bytes, stride_bytes=stride_bytes)
