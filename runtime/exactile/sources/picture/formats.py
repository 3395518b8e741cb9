"""The formats of pictures, recognised by their first bytes; headers are read before anything is decoded."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from zlib import adler32

from numpy.typing import NDArray

from exactile.errors import SourceError
from exactile.sources.jpeg2000_markers import CODESTREAM as JPEG2000_CODESTREAM
from exactile.sources.jpeg2000_markers import check_jpeg2000_end
from exactile.sources.picture.bmp import bmp_header, check_bmp_rows
from exactile.sources.picture.header import PictureHeader
from exactile.sources.picture.jpeg import jpeg_header, longer_scans
from exactile.sources.picture.jpeg2000 import jpeg2000_header
from exactile.sources.picture.jpegxl import CODESTREAM as JPEGXL_CODESTREAM
from exactile.sources.picture.jpegxl import jpegxl_header
from exactile.sources.picture.png import png_header
from exactile.sources.picture.webp import webp_header
from exactile.sources.positional_file import DamagedDataError, PositionalFile

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".jp2", ".j2k", ".jxl")
"""Suffixes of pictures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureFormat:
    """``decode`` returns (H, W) or (H, W, C) from the bytes of a whole file."""

    name: str
    header: Callable[[PositionalFile], PictureHeader]
    decode: Callable[[bytes, PictureHeader], NDArray[Any]]


def picture_format(start: bytes) -> PictureFormat | None:
    """Return the format of a file that begins with ``start`` (16 bytes), or None."""
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return _WEBP
    if start[:2] == b"BM" and start[6:10] == b"\0\0\0\0":
        return _BMP
    return next((found for magic, found in _BY_MAGIC.items() if start.startswith(magic)), None)


def read_header(kind: PictureFormat, file: PositionalFile) -> PictureHeader:
    """Read the header. Raises SourceError for what is damaged, not read, or claims more than the file can hold."""
    try:
        header = kind.header(file)
    # Truncated fields are damage like any other.
    except (DamagedDataError, ValueError, struct.error) as error:
        raise SourceError(f"{file.name}: is a damaged {kind.name} picture: {error}; copy it again") from error
    if header.least_bytes > file.size_bytes:
        raise SourceError(
            f"{file.name}: is a damaged {kind.name} picture: {header.height} x {header.width} pixels take at least "
            f"{header.least_bytes} bytes, but the file has {file.size_bytes}; copy it again"
        )
    return header


def _png(data: bytes, _header: PictureHeader) -> NDArray[Any]:
    import imagecodecs

    return imagecodecs.png_decode(data)


def _jpeg(data: bytes, _header: PictureHeader) -> NDArray[Any]:
    import imagecodecs

    longer = longer_scans(data)
    made_of_longer = adler32(imagecodecs.jpeg8_decode(longer).data)  # first, so that there is one array at a time
    pixels: NDArray[Any] = imagecodecs.jpeg8_decode(data)
    if adler32(pixels.data) != made_of_longer:
        raise DamagedDataError("its pixels end early")
    return pixels


def _bmp(data: bytes, header: PictureHeader) -> NDArray[Any]:
    import imagecodecs

    check_bmp_rows(data)
    pixels: NDArray[Any] = imagecodecs.bmp_decode(data, asrgb=True)
    return pixels[..., :1].copy() if header.channels == 1 and pixels.ndim == 3 else pixels


def _webp(data: bytes, _header: PictureHeader) -> NDArray[Any]:
    import imagecodecs

    return imagecodecs.webp_decode(data)


def _jpeg2000(data: bytes, _header: PictureHeader) -> NDArray[Any]:
    import imagecodecs

    check_jpeg2000_end(data)
    return imagecodecs.jpeg2k_decode(data, numthreads=1)


def _jpegxl(data: bytes, _header: PictureHeader) -> NDArray[Any]:
    import imagecodecs

    return imagecodecs.jpegxl_decode(data, keeporientation=True, numthreads=1)


_BMP = PictureFormat(name="BMP", header=bmp_header, decode=_bmp)
_WEBP = PictureFormat(name="WebP", header=webp_header, decode=_webp)
_JPEG2000 = PictureFormat(name="JPEG 2000", header=jpeg2000_header, decode=_jpeg2000)
_JPEGXL = PictureFormat(name="JPEG XL", header=jpegxl_header, decode=_jpegxl)
_BY_MAGIC = {
    b"\x89PNG\r\n\x1a\n": PictureFormat(name="PNG", header=png_header, decode=_png),
    b"\xff\xd8\xff": PictureFormat(name="JPEG", header=jpeg_header, decode=_jpeg),
    b"\0\0\0\x0cjP  \r\n\x87\n": _JPEG2000,
    JPEG2000_CODESTREAM: _JPEG2000,
    b"\0\0\0\x0cJXL \r\n\x87\n": _JPEGXL,
    JPEGXL_CODESTREAM: _JPEGXL,
}
