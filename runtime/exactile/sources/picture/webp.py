"""The header of a WebP picture."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np

from exactile.sources.picture.header import PictureHeader, exif_orientation, several_frames
from exactile.sources.positional_file import DamagedDataError, PositionalFile

_FIRST_CHUNK = 12
_ANIMATED, _ALPHA = 0x02, 0x10
_LARGEST_EXIF_BYTES = 1 << 20


def webp_header(file: PositionalFile) -> PictureHeader:
    """Read the header: RGB, or RGBA if it has alpha. Raises DamagedDataError, and SourceError for an animation."""
    alpha, orientation = False, 1
    size: tuple[int, int] | None = None
    for name, start, length in _chunks(file):
        if name == b"VP8X":
            flags = file.read(start, 1)[0]
            if flags & _ANIMATED:
                raise several_frames(file, "WebP")
            alpha = bool(flags & _ALPHA)
        elif name == b"ALPH":
            alpha = True
        elif name == b"VP8 ":
            size = _lossy(file.read(start, 10))
        elif name == b"VP8L":
            height, width, alpha = _lossless(file.read(start, 5))
            size = height, width
        elif name == b"EXIF" and length <= _LARGEST_EXIF_BYTES:
            orientation = exif_orientation(file.read(start, length))
    if size is None:
        raise DamagedDataError("it has no pixels")
    return PictureHeader(
        height=size[0],
        width=size[1],
        channels=3 + alpha,
        dtype=np.dtype(np.uint8),
        alpha=3 if alpha else None,
        scratch=1.6,
        orientation=orientation,
    )


def _chunks(file: PositionalFile) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, start and length of every chunk whose first bytes exist."""
    position = _FIRST_CHUNK
    while position + 8 <= file.size_bytes:
        name, length = struct.unpack("<4sI", file.read(position, 8))
        yield name, position + 8, min(length, max(0, file.size_bytes - position - 8))
        position += 8 + length + length % 2


def _lossy(start: bytes) -> tuple[int, int]:
    code, width, height = struct.unpack_from("<3sHH", start, 3)
    if code != b"\x9d\x01\x2a" or not (width & 0x3FFF and height & 0x3FFF):
        raise DamagedDataError("its frame header is damaged")
    return height & 0x3FFF, width & 0x3FFF


def _lossless(start: bytes) -> tuple[int, int, bool]:
    signature, bits = struct.unpack("<BI", start)
    if signature != 0x2F:
        raise DamagedDataError("its lossless stream has no signature")
    return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1, bool(bits >> 28 & 1)
