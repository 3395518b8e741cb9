"""Pixels from a Nikon ND2 file, opened with nd2."""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.errors import SourceError
from exactile.sources.named.images import NamedImage, Selection
from exactile.sources.named.source import NamedSource
from exactile.sources.nd2.frames import read_frames
from exactile.sources.pixel_size import PixelSize, pixel_size
from exactile.sources.positional_file import DamagedDataError, PositionalFile

BAND_BYTES = 4 << 20
"""Bytes of an uncompressed frame that are read at a time."""

_INSTALL = "pip install 'exactile[nd2]'"
_PLANES = "TZ"


class Nd2Source(NamedSource):
    """A plane of an ND2 file of NIS-Elements 3 and later, exactly nd2's pixels: uint8, uint16 or float32.

    ``series`` chooses the position, ``z`` and ``t`` the plane. Uncompressed frames are read in bands of rows in place,
    losslessly compressed ones as a whole. A frame that was announced and not recorded is an error, whereas nd2 returns
    zeros. Colour cameras' frames (RGB), lossy compression, frames in tiles, and axes other than time, position, Z and
    channel are not read.
    """

    def __init__(self, path: str | os.PathLike[str], **choice: Any) -> None:
        super().__init__(path, "nd2", Nd2File, **choice)


class Nd2File:
    """An ND2 file, opened by nd2, and its table of frames."""

    reader, format = "nd2", "ND2 (Nikon)"

    def __init__(self, file: PositionalFile) -> None:
        self._file = file
        self._library = _opened(file.name)
        try:
            self._read_structure()
        except SourceError:
            self.close()
            raise
        # Metadata are trees of any shape; any error may come.
        except Exception as error:
            self.close()
            raise SourceError(f"{file.name}: cannot be read by nd2: {error or type(error).__name__}") from error

    def _read_structure(self) -> None:
        library, name = self._library, self._file.name
        if library.is_legacy:
            raise SourceError(f"{name}: is an ND2 file of the old kind, in JPEG 2000, which is not read; {_SAVE}")
        self._attributes = library.attributes
        self._compression = self._attributes.compressionType or "none"
        sizes = dict(library.sizes)
        self._loops = {axis: size for axis, size in sizes.items() if axis not in "CYXS"}
        self._frames = read_frames(self._file)
        expected = int(np.prod(list(self._loops.values()), dtype=np.int64))
        if self._frames.count > expected:
            raise SourceError(
                f"{name}: holds {self._frames.count} frames, but its axes {dict(self._loops)} make {expected}; {_SAVE}"
            )
        self._dtype = np.dtype(library.dtype)
        self._pixel_size = _pixel_size(library)
        self._channels = tuple(one.channel.name for one in library.metadata.channels or ())

    @property
    def count(self) -> int:
        return int(self._loops.get("P", 1))

    def title(self, number: int) -> str | None:
        return f"position {number}" if self.count > 1 else None

    def image(self, number: int) -> NamedImage:
        attributes, name = self._attributes, self._file.name
        components = attributes.componentCount
        if components != (attributes.channelCount or 1):
            raise SourceError(f"{name}: has colour samples (RGB), which are not read from ND2 files; {_SAVE}")
        if attributes.tileWidthPx is not None and attributes.tileWidthPx < attributes.widthPx:
            raise SourceError(f"{name}: has frames in tiles, which are not read from ND2 files; {_SAVE}")
        if self._compression not in {"none", "lossless"}:
            raise SourceError(f"{name}: is compressed with loss, which is not read from ND2 files; {_SAVE}")
        planes = [axis for axis in self._loops if axis != "P"]
        height, width = attributes.heightPx, attributes.widthPx
        band = height if self._compression == "lossless" else _band_rows(height, attributes.widthBytes)
        return NamedImage(
            title=self.title(number),
            axes="".join(axis if axis in _PLANES else "?" for axis in planes) + "YXC",
            shape=(*(self._loops[axis] for axis in planes), height, width, components),
            dtype=self._dtype,
            chunks=(*(1 for _ in planes), band, width, components),
            read=lambda selection: self._read(number, planes, selection),
            pixel_size_um=self._pixel_size,
            channel_names=self._channels if len(self._channels) == components else (),
            compression="zlib" if self._compression == "lossless" else "none",
        )

    def _read(self, position: int, planes: Sequence[str], selection: Selection) -> NDArray[Any]:
        at = dict(zip(planes, selection, strict=False)) | {"P": position}
        places = [at[axis] for axis in self._loops]
        frame = int(np.ravel_multi_index(places, list(self._loops.values()))) if self._loops else 0  # type: ignore[arg-type]
        rows, columns, channels = selection[len(planes) :]
        assert isinstance(rows, slice)
        if self._compression == "lossless":
            return self._decompressed(frame)[rows, columns, channels]
        return self._band(frame, rows)[:, columns, channels]

    def _band(self, frame: int, rows: slice) -> NDArray[Any]:
        """Return rows of an uncompressed frame, (n, W, C)."""
        attributes = self._attributes
        row_bytes = attributes.widthBytes
        start, size_bytes = self._frames.place(frame)
        if size_bytes < attributes.heightPx * row_bytes:
            raise DamagedDataError(f"frame {frame} has {size_bytes} bytes, too few for its pixels")
        data = self._file.read(start + rows.start * row_bytes, (rows.stop - rows.start) * row_bytes)
        lines = np.frombuffer(data, np.uint8).reshape(rows.stop - rows.start, row_bytes)
        used = np.ascontiguousarray(lines[:, : attributes.widthPx * attributes.componentCount * self._dtype.itemsize])
        band: NDArray[Any] = used.view(self._dtype).reshape(len(lines), attributes.widthPx, -1)
        return band

    def _decompressed(self, frame: int) -> NDArray[Any]:
        """Return a whole frame, (H, W, C), as nd2 decodes it."""
        self._frames.place(frame)
        attributes = self._attributes
        shape = attributes.componentCount, attributes.heightPx, attributes.widthPx
        try:
            return np.moveaxis(np.asarray(self._library.read_frame(frame)).reshape(shape), 0, 2)
        except zlib.error as error:
            raise DamagedDataError(f"frame {frame} cannot be decompressed: {error}") from error

    def close(self) -> None:
        self._library.close()


_SAVE = "save it as OME-TIFF with NIS-Elements or Bio-Formats"


def _opened(name: str) -> Any:
    try:
        import nd2
    except ImportError as error:
        raise SourceError(f"{name}: is a Nikon ND2 file, read with nd2, which is not installed: {_INSTALL}") from error
    try:
        return nd2.ND2File(name)
    # What damaged files raise is not documented.
    except Exception as error:
        raise SourceError(f"{name}: cannot be opened by nd2: {error or type(error).__name__}; copy it again") from error


def _band_rows(height: int, row_bytes: int) -> int:
    return min(height, max(1, BAND_BYTES // row_bytes))


def _pixel_size(library: Any) -> PixelSize | None:
    """Return the pixel size if the file is marked as calibrated."""
    channels = library.metadata.channels or ()
    if not channels or not all(channels[0].volume.axesCalibrated[:2]):
        return None
    size = library.voxel_size()
    return pixel_size(size.y, size.x)
