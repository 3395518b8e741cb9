"""The layout of one image in a TIFF file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.geometry import Box
from exactile.sources.chunks.grid import ChunkGrid
from exactile.sources.metadata import NO_METADATA, ImageMetadata
from exactile.sources.pixel_size import PixelSize

Decode = Callable[[bytes, int], NDArray[Any]]
"""From the stored bytes and the index of a segment to its pixels, (H, W, samples) in native byte order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkPlane:
    """The chunks of one plane: all samples of each pixel, or those of one channel.

    ``offsets`` and ``sizes_bytes`` are (chunk rows * chunk columns,) int64, row by row; a chunk of size 0 is empty:
    all its pixels have the layout's ``fill``. ``number`` counts the planes of the image, ``first_segment`` is the index
    of the plane's first chunk in its page.
    """

    number: int
    offsets: NDArray[np.int64]
    sizes_bytes: NDArray[np.int64]
    first_segment: int
    decode: Decode


@dataclass(frozen=True, slots=True, kw_only=True)
class TiffLayout:
    """One image: ``planes`` of ``samples`` samples for each pixel, together ``channels`` channels.

    ``raw`` chunks are rows of plain samples in the file's byte order, as ``stored_dtype`` has it, and are read
    in part; others are decoded as a whole, for which ``scratch_bytes`` are needed beside the stored bytes of a chunk
    and its pixels. ``level`` is the image's number in its pyramid, ``pixel_size_um`` the height
    and width of its pixels, ``metadata`` what its tags say beside them.
    """

    grid: ChunkGrid
    planes: tuple[ChunkPlane, ...]
    samples: int
    stored_dtype: np.dtype[Any]
    raw: bool
    fill: float
    scratch_bytes: int = 0
    level: int = 0
    pixel_size_um: PixelSize | None = None
    metadata: ImageMetadata = NO_METADATA

    @property
    def channels(self) -> int:
        return len(self.planes) * self.samples

    @property
    def decoding_bytes(self) -> int:
        """Bytes for decoding one chunk: its stored bytes, its pixels, and the decoder's memory."""
        stored = max((int(plane.sizes_bytes.max(initial=0)) for plane in self.planes), default=0)
        pixels = self.grid.chunk_rows * self.grid.chunk_columns
        return stored + pixels * self.samples * self.stored_dtype.itemsize + self.scratch_bytes

    def describe_chunk(self, plane: int, row: int, column: int) -> str:
        """Name a chunk for an error message, with its pixels."""
        box: Box = self.grid.chunk_box(row, column)
        where = f"chunk row {row}, column {column}"
        if self.planes[plane].number or len(self.planes) > 1:
            where += f" of plane {self.planes[plane].number}"
        return f"{where} (pixels y {box.y.start}:{box.y.stop}, x {box.x.start}:{box.x.stop})"
