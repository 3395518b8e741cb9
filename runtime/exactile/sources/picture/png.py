"""The header of a PNG picture."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from exactile.errors import SourceError
from exactile.sources.picture.header import PictureHeader, exif_orientation, sample_type, several_frames
from exactile.sources.positional_file import DamagedDataError, PositionalFile

_SIGNATURE_BYTES = 8
_LARGEST_EXIF_BYTES = 1 << 20
_GREY, _RGB, _PALETTE, _GREY_ALPHA, _RGBA = 0, 2, 3, 4, 6
_COLOURS = {_GREY: 1, _RGB: 3, _PALETTE: 3, _GREY_ALPHA: 1, _RGBA: 3}
_STORED = {_GREY: 1, _RGB: 3, _PALETTE: 1, _GREY_ALPHA: 2, _RGBA: 4}
_BITS = {_GREY: (1, 2, 4, 8, 16), _PALETTE: (1, 2, 4, 8), _RGB: (8, 16), _GREY_ALPHA: (8, 16), _RGBA: (8, 16)}
_MOST_DEFLATED = 1032
"""No byte of a deflated stream stands for more."""


def png_header(file: PositionalFile) -> PictureHeader:
    """Read the header: palettes as RGB; a transparent colour or palette is an alpha channel.

    Raises DamagedDataError, and SourceError for unsupported files.
    """
    chunks = _chunks(file)
    name, start, length = next(chunks, (b"", 0, 0))
    if name != b"IHDR" or length != 13:
        raise DamagedDataError("it does not begin with IHDR")
    width, height, bits, colour = struct.unpack(">IIBB", file.read(start, 10))
    if not (width and height and bits in _BITS.get(colour, ())):
        raise DamagedDataError(f"{width} x {height} pixels of colour type {colour} with {bits} bits are none of PNG's")
    transparent, orientation = colour in (_GREY_ALPHA, _RGBA), 1
    for name, start, length in chunks:
        if name == b"acTL":
            raise several_frames(file, "PNG")
        transparent |= name == b"tRNS"
        if name == b"eXIf" and length <= _LARGEST_EXIF_BYTES:
            orientation = exif_orientation(file.read(start, length))
    row_bytes = -(-width * bits * _STORED[colour] // 8)
    return PictureHeader(
        height=height,
        width=width,
        channels=_COLOURS[colour] + transparent,
        dtype=sample_type(bits, file),
        alpha=_COLOURS[colour] if transparent else None,
        least_bytes=row_bytes * height // _MOST_DEFLATED,
        orientation=orientation,
    )


def _chunks(file: PositionalFile) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, start and length of the chunks before the pixels."""
    position = _SIGNATURE_BYTES
    while True:
        length, name = struct.unpack(">I4s", file.read(position, 8))
        if name == b"IDAT":
            return
        if name == b"IEND":
            raise SourceError(f"{file.name}: is a PNG picture without pixels")
        yield name, position + 8, length
        position += length + 12
