"""The header of a BMP picture."""

from __future__ import annotations

import struct

import numpy as np

from exactile.errors import SourceError
from exactile.sources.picture.header import PictureHeader
from exactile.sources.positional_file import DamagedDataError, PositionalFile

_FILE_HEADER_BYTES = 14
_RGB, _RLE8, _RLE4, _BIT_FIELDS, _ALPHA_BIT_FIELDS = 0, 1, 2, 3, 6
_LEAST_SHARE = 1000
"""A file with less than this fraction of its pixels is not a picture; with more of them it is truncated."""
_ALPHA_AT = 52
"""Offset of the mask of alpha in headers that are long enough."""


def bmp_header(file: PositionalFile) -> PictureHeader:
    """Read the header; a palette is RGB, one of greys grey. Raises DamagedDataError, and SourceError for unsupported
    files.
    """
    header_bytes = struct.unpack("<I", file.read(_FILE_HEADER_BYTES, 4))[0]
    if header_bytes < 40:
        raise SourceError(f"{file.name}: is a BMP picture of the kind before Windows 3; store it as TIFF or PNG")
    header = file.read(_FILE_HEADER_BYTES, min(header_bytes, 124))
    width, height, _, bits, coding = struct.unpack_from("<iiHHI", header, 4)
    if coding in (_RLE8, _RLE4) or coding > _ALPHA_BIT_FIELDS or coding in (4, 5):
        raise SourceError(
            f"{file.name}: is a BMP picture with run-length or other coding ({coding}), which is not read; "
            "store it as TIFF or PNG"
        )
    allowed = (16, 32) if coding != _RGB else (1, 4, 8, 16, 24, 32)
    if width < 1 or not height or bits not in allowed:
        raise DamagedDataError(f"{width} x {abs(height)} pixels of {bits} bits with coding {coding} are none of BMP's")
    alpha = coding != _RGB and len(header) >= _ALPHA_AT + 4 and struct.unpack_from("<I", header, _ALPHA_AT)[0] != 0
    grey = bits <= 8 and _has_grey_palette(file, header, bits)
    return PictureHeader(
        height=abs(height),
        width=width,
        channels=1 if grey else 3 + alpha,
        dtype=np.dtype(np.uint8),
        alpha=3 if alpha else None,
        scratch=3.0 if grey else 0.1,
        least_bytes=-(-width * bits // 32) * 4 * abs(height) // _LEAST_SHARE,
    )


def _has_grey_palette(file: PositionalFile, header: bytes, bits: int) -> bool:
    colours = struct.unpack_from("<I", header, 32)[0] or 1 << bits
    if colours > 1 << bits:
        raise DamagedDataError(f"a palette of {colours} colours is too large for {bits} bits")
    palette = np.frombuffer(file.read(_FILE_HEADER_BYTES + len(header), 4 * colours), np.uint8).reshape(-1, 4)
    return bool((palette[:, 0] == palette[:, 1]).all() and (palette[:, 1] == palette[:, 2]).all())


def check_bmp_rows(data: bytes) -> None:
    """Raise DamagedDataError if the rows do not lie in the file, after its header."""
    offset, header_bytes, width, height, _, bits = struct.unpack_from("<IIiiHH", data, 10)
    needed = offset + -(-width * bits // 32) * 4 * abs(height)
    if offset < _FILE_HEADER_BYTES + header_bytes or needed > len(data):
        raise DamagedDataError(f"its rows lie at bytes {offset} to {needed}, but the file has {len(data)}")
