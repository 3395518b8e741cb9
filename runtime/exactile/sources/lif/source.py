"""Pixels from a Leica LIF file, read by liffile."""

from __future__ import annotations

import os
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.errors import SourceError
from exactile.sources.named.images import NamedImage, Selection
from exactile.sources.named.source import NamedSource
from exactile.sources.pixel_size import PixelSize, pixel_size, to_microns
from exactile.sources.positional_file import PositionalFile

_INSTALL = "pip install 'exactile[lif]'"
_SAVE = "export it as OME-TIFF"
_FRAME = ("Y", "X")
_WAVELENGTHS = ("λ", "Λ")
"""liffile's letters of emission and excitation, which are channels if there are no others."""

_DIMENSION = "./Data/Image/ImageDescription/Dimensions/DimensionDescription"
_CHANNEL = "./Data/Image/ImageDescription/Channels/ChannelDescription"
_IDS = {"Y": "2", "X": "1"}


class LifSource(NamedSource):
    """A plane of an image of a LIF file, exactly liffile's pixels: uint8, uint16 or float32.

    ``series`` chooses the image, ``z`` and ``t`` the plane. Channels are the file's; of a scan over wavelengths, each
    wavelength is one. Frames are read one at a time, each as a whole. Colours (RGB), planes other than XY, mosaics and
    lifetime images are not read.
    """

    def __init__(self, path: str | os.PathLike[str], **choice: Any) -> None:
        super().__init__(path, "lif", LifFile, **choice)


class LifFile:
    """A LIF file, opened by liffile."""

    reader, format = "liffile", "LIF (Leica)"

    def __init__(self, file: PositionalFile) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._library = _opened(file.name)
        kind = self._library.type.name
        if kind != "LIF":
            self.close()
            raise SourceError(f"{file.name}: is a Leica {kind} file; of Leica's files LIF is read; {_SAVE}")
        try:
            self._images = list(self._library.images)
        # What damaged files raise is not documented.
        except Exception as error:
            self.close()
            raise SourceError(f"{file.name}: cannot be read by liffile: {error or type(error).__name__}") from error

    @property
    def count(self) -> int:
        return len(self._images)

    def title(self, number: int) -> str | None:
        return str(self._images[number].path) or None

    def image(self, number: int) -> NamedImage:
        try:
            return self._image(number)
        except SourceError:
            raise
        # As above; among them what liffile does not read.
        except Exception as error:
            raise SourceError(f"{self._where(number)}: cannot be read by liffile: {error}; {_SAVE}") from error

    def _image(self, number: int) -> NamedImage:
        image = self._images[number]
        if image.is_flim:
            raise SourceError(f"{self._where(number)}: is a lifetime image, which is not read; {_SAVE}")
        frames = image.frames
        if tuple(frames.frame_dims) != _FRAME or frames.dims[-2:] != _FRAME:
            raise SourceError(
                f"{self._where(number)}: its axes are {', '.join(image.dims)}, in frames of "
                f"{' and '.join(frames.frame_dims)}, but frames of Y and X are read; {_SAVE}"
            )
        self._check_stored(number)
        shape = tuple(frames.sizes[dim] for dim in frames.dims)
        return NamedImage(
            title=self.title(number),
            axes="".join(_letter(dim, frames.dims) for dim in frames.dims),
            shape=shape,
            dtype=np.dtype(image.dtype),
            chunks=(*(1 for _ in shape[:-2]), *shape[-2:]),
            read=lambda selection: self._read(frames, selection),
            pixel_size_um=_pixel_size(image),
            channel_names=_channel_names(image),
        )

    def _check_stored(self, number: int) -> None:
        """Check the stored bytes: if there are fewer than there should be, liffile reads on into what follows."""
        image = self._images[number]
        block, needed = image.memory_block, _stored_bytes(image)
        if needed > block.size or block.offset < 0:
            raise SourceError(
                f"{self._where(number)}: its pixels take {needed} bytes, but {block.size} are stored; was it recorded "
                "to its end?"
            )
        if block.offset + block.size > self._file.size_bytes:
            raise SourceError(
                f"{self._where(number)}: is truncated: its pixels end at byte {block.offset + block.size}, but the "
                f"file at {self._file.size_bytes}; copy it again"
            )

    def _read(self, frames: Any, selection: Selection) -> NDArray[Any]:
        """Return the samples; a slice along C keeps its axis, also of one channel."""
        places = [place.start if isinstance(place, slice) else place for place in selection[:-2]]
        with self._lock:
            frame = np.asarray(frames[tuple(places)] if places else frames[0])
        kept = frame[selection[-2:]]
        return kept[None] if any(isinstance(place, slice) for place in selection[:-2]) else kept

    def _where(self, number: int) -> str:
        return f"{self._file.name}: series {number} ({self.title(number)})"

    def close(self) -> None:
        self._library.close()


def _opened(name: str) -> Any:
    try:
        import liffile
    except ImportError as error:
        raise SourceError(
            f"{name}: is a Leica LIF file, read with liffile, which is not installed: {_INSTALL}"
        ) from error
    try:
        return liffile.LifFile(name)
    # As above.
    except Exception as error:
        raise SourceError(f"{name}: cannot be opened by liffile: {error or type(error).__name__}") from error


def _stored_bytes(image: Any) -> int:
    """Return the end of the last sample of an image in its block."""
    places = [int(one.get("BytesInc", 0)) for one in image.xml_element.findall(_CHANNEL)]
    steps = (
        (int(one.get("NumberOfElements", 0)) - 1) * int(one.get("BytesInc", 0))
        for one in image.xml_element.findall(_DIMENSION)
    )
    return sum(steps) + max(places, default=0) + int(image.dtype.itemsize)


def _letter(dim: str, dims: tuple[str, ...]) -> str:
    if dim in _WAVELENGTHS and "C" not in dims and sum(one in _WAVELENGTHS for one in dims) == 1:
        return "C"
    return dim if dim in {"T", "Z", "C", "Y", "X"} else "?"


def _pixel_size(image: Any) -> PixelSize | None:
    """Return the pixel size; stored lengths are those from the first pixel to the last."""
    sides: dict[str, float | None] = {}
    for dimension in image.xml_element.findall(_DIMENSION):
        steps = int(dimension.get("NumberOfElements", 0)) - 1
        if steps > 0:
            sides[dimension.get("DimID", "")] = to_microns(
                abs(float(dimension.get("Length", 0))) / steps, dimension.get("Unit")
            )
    return pixel_size(sides.get(_IDS["Y"]), sides.get(_IDS["X"]))


def _channel_names(image: Any) -> tuple[str, ...]:
    """Return the names of the colours in which channels are shown, the only names that they have."""
    names = tuple(channel.get("LUTName", "") for channel in image.xml_element.findall(_CHANNEL))
    there = "C" in image.dims or not any(dim in _WAVELENGTHS for dim in image.dims)
    return names if there and len(names) == image.sizes.get("C", 1) and any(names) else ()
