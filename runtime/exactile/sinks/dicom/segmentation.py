"""Labels as a DICOM Segmentation of the slide that they belong to: a label map in tiles, with RLE frames.

::

    header     made by highdicom from the slide's own, with the size of all labels
    tables     offset and length of each frame
    frames     row by row of tiles, each encoded when all labels are there
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.errors import SinkError
from exactile.geometry import Box
from exactile.sinks.blocks import pixel_bytes
from exactile.sinks.dicom.rle import rle_frame
from exactile.sinks.dicom.segments import TILE_PX, label_map, segments
from exactile.sinks.files.part_file import PartFile
from exactile.sinks.files.sink import FileSink
from exactile.sinks.protocol import ResultSpec, WritePlan
from exactile.sinks.raster_rows import write_rows

_INSTALL = "pip install 'exactile[dicom]'"
_LABEL_TYPES = ("uint8", "uint16")
_ITEM = struct.Struct("<HHI")
_START, _END = (0xFFFE, 0xE000), (0xFFFE, 0xE0DD)
"""Tags of an item, and of the end of all items."""

_COUNTED_PX = 1 << 18
"""Labels that are counted at a time, as 8-byte numbers, or a row."""

_PIXEL_DATA = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF)


class DicomSegmentationSink(FileSink[PartFile]):
    """Writes a DICOM Segmentation (label map) with the place and the identity of the slide's level, in tiles of 512.

    The image has to be a slide in DICOM files, and the result labels of its size. Until it is complete, labels are in a
    file beside it; a row of tiles is in memory while it is encoded. ``begin`` raises SinkError if highdicom is not
    installed, and for other images and results.
    """

    def __init__(self, path: str | PathLike[str], *, overwrite: bool = False) -> None:
        super().__init__(path, overwrite=overwrite)
        self._labels: PartFile | None = None
        self._found: set[int] = set()

    def buffer_bytes(self, spec: ResultSpec, plan: WritePlan) -> int:
        """Return a copy of the largest box, or a row of tiles twice; counts; and four times the places of frames."""
        rows = max((span.length for span in plan.rows), default=0)
        columns = max((span.length for span in plan.columns), default=0)
        pixels = max(rows * columns, 2 * TILE_PX * (spec.width + TILE_PX))
        return pixels * pixel_bytes(spec) + 10 * _COUNTED_PX + 4 * 16 * _frame_count(spec)

    def _open_part(self, spec: ResultSpec) -> PartFile:
        _check(spec, self.path)
        return PartFile(self.path, overwrite=self._overwrite)

    def _start(self, part: PartFile, spec: ResultSpec) -> None:  # noqa: ARG002 -- the seam's signature
        self._dataset(spec)  # check the slide's own header before the work
        self._labels = PartFile(self.path, overwrite=True)
        self._labels.preallocate(spec.height * spec.width * pixel_bytes(spec))

    def _put(self, part: PartFile, box: Box, planes: NDArray[Any]) -> None:  # noqa: ARG002 -- the seam's signature
        assert self._labels is not None
        assert self._spec is not None
        write_rows(self._labels, box, planes[0], width=self._spec.width)
        step = max(1, _COUNTED_PX // box.x.length)
        for first in range(0, box.y.length, step):
            self._found.update(np.flatnonzero(np.bincount(planes[0, first : first + step].ravel())).tolist())

    def _complete(self, part: PartFile) -> None:
        spec = self._spec
        assert spec is not None
        dataset, table = self._dataset(spec), np.zeros((2, _frame_count(spec)), np.uint64)
        frames_at = len(_header(dataset, table)) + len(_PIXEL_DATA) + _ITEM.size
        at = 0
        for number, frame in enumerate(self._frames(spec)):
            part.write_at(_item(frame), frames_at + at)
            table[:, number] = at, len(frame)
            at += _ITEM.size + len(frame)
        part.write_at(_ITEM.pack(*_END, 0), frames_at + at)
        part.cut(frames_at + at + _ITEM.size)
        part.write_at(_header(dataset, table) + _PIXEL_DATA + _item(b""), 0)

    def _dataset(self, spec: ResultSpec) -> Any:
        """Return all but the frames and their places, with a segment for each label that was found."""
        from pydicom import dcmread

        source = dcmread(spec.instances[0], stop_before_pixels=True)
        size = int(source.TotalPixelMatrixRows), int(source.TotalPixelMatrixColumns)
        if size != (spec.height, spec.width):
            raise SinkError(
                f"{self.path}: a DICOM Segmentation has the size of its slide, {size[0]} x {size[1]}, and the "
                f"result has {spec.height} x {spec.width} pixels. What to do: write .ome.tif or .zarr"
            )
        described = segments(spec.labels, sorted(self._found), spec.model) or segments((), [1], spec.model)
        background = next((one.name for one in spec.labels if one.value == 0), "")
        return label_map(source, described, _frame_count(spec), background=background)

    def _frames(self, spec: ResultSpec) -> Iterator[bytes]:
        """Yield encoded tiles, row by row; beyond the image they are background."""
        assert self._labels is not None
        dtype = np.dtype(spec.dtype)
        stored = np.uint8 if max(self._found, default=0) < 256 else np.uint16
        columns = -(-spec.width // TILE_PX)
        for top in range(0, spec.height, TILE_PX):
            height = min(TILE_PX, spec.height - top)
            band = np.zeros((TILE_PX, columns * TILE_PX), stored)
            row_bytes = spec.width * dtype.itemsize
            read = self._labels.read_at(height * row_bytes, top * row_bytes)
            band[:height, : spec.width] = np.frombuffer(read, dtype).reshape(height, spec.width)
            for left in range(0, columns * TILE_PX, TILE_PX):
                yield rle_frame(band[:, left : left + TILE_PX])

    def _release(self) -> None:
        labels, self._labels = self._labels, None
        if labels is not None:
            labels.discard()


def _check(spec: ResultSpec, path: Path) -> None:
    """Raise SinkError for results without a DICOM Segmentation."""
    try:
        import highdicom  # noqa: F401
    except ImportError as error:
        raise SinkError(f"{path}: a DICOM Segmentation is written with highdicom: {_INSTALL}") from error
    if not spec.instances:
        raise SinkError(
            f"{path}: a DICOM Segmentation belongs to a slide in DICOM files, and the image is not one. What to do: "
            f"write "
            ".ome.tif or .zarr, or read the slide from its DICOM files"
        )
    if spec.channels or spec.dtype not in _LABEL_TYPES:
        raise SinkError(
            f"{path}: a DICOM Segmentation holds labels of uint8 or uint16, and the result is {spec.shape} of "
            f"{spec.dtype}. What to do: --output labels, or write .ome.tif or .zarr"
        )


def _frame_count(spec: ResultSpec) -> int:
    return -(-spec.height // TILE_PX) * -(-spec.width // TILE_PX)


def _header(dataset: Any, table: NDArray[np.uint64]) -> bytes:
    """Return all that comes before the frames; ``table`` has offset and length of each, (2, N)."""
    from pydicom import dcmwrite

    dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths = (row.astype("<u8").tobytes() for row in table)
    stream = io.BytesIO()
    dcmwrite(stream, dataset, enforce_file_format=True)
    return stream.getvalue()


def _item(frame: bytes) -> bytes:
    return _ITEM.pack(*_START, len(frame)) + frame
