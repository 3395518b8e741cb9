"""The header of a picture before it is decoded."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from exactile.errors import SourceError
from exactile.sources.positional_file import PositionalFile

_ORIENTATION_TAG = 274


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureHeader:
    """A picture of ``height`` x ``width`` pixels of ``channels`` samples of ``dtype``.

    ``alpha`` is the channel that is an alpha channel. ``least_bytes`` is less than any file of that many pixels takes.
    ``scratch`` is what the decoder needs besides the pixels, in bytes a sample. ``orientation`` is EXIF's, 1 to 8.
    """

    height: int
    width: int
    channels: int
    dtype: np.dtype[Any]
    alpha: int | None = None
    least_bytes: int = 0
    scratch: float = 0.1
    orientation: int = 1

    def __post_init__(self) -> None:
        if min(self.height, self.width, self.channels) < 1:
            raise ValueError(f"a picture of {self.height} x {self.width} x {self.channels} samples has no pixels")

    @property
    def decoded_bytes(self) -> int:
        return self.height * self.width * self.channels * self.dtype.itemsize


def sample_type(bits: int, file: PositionalFile) -> np.dtype[Any]:
    """Return the delivered type of samples of ``bits`` bits. Raises SourceError beyond 16."""
    if not 1 <= bits <= 16:
        raise SourceError(f"{file.name}: has samples of {bits} bits, but pictures of up to 16 are read")
    return np.dtype(np.uint8 if bits <= 8 else np.uint16)


def several_frames(file: PositionalFile, kind: str) -> SourceError:
    """Return the error for an animation."""
    return SourceError(f"{file.name}: is an animated {kind} picture; store the frame that is wanted as a picture")


def exif_orientation(exif: bytes) -> int:
    """Return the orientation that an EXIF block (a small TIFF file) states; 1 where it states none."""
    exif = exif.removeprefix(b"Exif\x00\x00")
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(exif[:4])
    if order is None:
        return 1
    try:
        start = struct.unpack_from(order + "I", exif, 4)[0]
        for number in range(struct.unpack_from(order + "H", exif, start)[0]):
            code, _, _, value = struct.unpack_from(order + "HHIH", exif, start + 2 + 12 * number)
            if code == _ORIENTATION_TAG:
                return int(value) if 1 <= value <= 8 else 1
    except struct.error:
        return 1
    return 1
