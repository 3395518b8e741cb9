"""The header of a JPEG picture, and the check that its stream is complete."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from exactile.errors import SourceError
from exactile.sources.picture.header import PictureHeader, exif_orientation, sample_type
from exactile.sources.positional_file import DamagedDataError, PositionalFile

_MARKER = re.compile(rb"\xff+([^\x00\xd0-\xd7\xff])", re.DOTALL)
_PROGRESSIVE = 0xC2
_READ_FRAMES = {0xC0, 0xC1, _PROGRESSIVE}  # those with Huffman codes
_OTHER_FRAMES = {0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_APP1, _SCAN, _END = 0xE1, 0xDA, 0xD9
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}
_MORE = bytes((37 * number + 11) % 251 for number in range(64))
_MOST_SAMPLES_A_BYTE = 8192
"""Blocks of 64 samples take a bit at least, and sub-sampled colours stand for up to 16 pixels."""


def jpeg_header(file: PositionalFile) -> PictureHeader:
    """Read the header: grey or RGB, of 8 or 12 bits. Raises DamagedDataError, and SourceError for unsupported files."""
    orientation = 1
    for code, start, length in _segments(file):
        if code == _APP1:
            orientation = max(orientation, exif_orientation(file.read(start, length)))
        if code in _OTHER_FRAMES:
            raise SourceError(
                f"{file.name}: is a JPEG picture of a rare kind (frame {code:#x}: lossless or arithmetic coding), "
                "which is not read; store it as TIFF or PNG"
            )
        if code in _READ_FRAMES:
            return _of_frame(file, file.read(start, 6), orientation, progressive=code == _PROGRESSIVE)
    raise DamagedDataError("it has no frame header")


def _of_frame(file: PositionalFile, frame: bytes, orientation: int, *, progressive: bool) -> PictureHeader:
    bits, height, width, components = struct.unpack(">BHHB", frame)
    if components == 4:
        raise SourceError(
            f"{file.name}: is a CMYK picture, and networks take grey or RGB; store it as RGB, e.g. with Pillow: "
            f"python -c \"from PIL import Image; Image.open('{file.name}').convert('RGB').save('rgb.png')\""
        )
    if components not in (1, 3) or bits not in (8, 12) or not (height and width):
        raise DamagedDataError(
            f"{height} x {width} pixels of {components} components with {bits} bits are none of JPEG's"
        )
    return PictureHeader(
        height=height,
        width=width,
        channels=components,
        dtype=sample_type(bits, file),
        least_bytes=height * width * components // _MOST_SAMPLES_A_BYTE,
        scratch=2.2 if progressive else 0.1,  # all coefficients
        orientation=orientation,
    )


def _segments(file: PositionalFile) -> Iterator[tuple[int, int, int]]:
    """Yield code, start and length of the contents of each segment before the pixels."""
    position = 2
    while True:
        marker, code = file.read(position, 2)
        if marker != 0xFF:
            raise DamagedDataError(f"there is no marker at byte {position}")
        position += 1 if code == 0xFF else 2  # any number of fill bytes may come before a marker
        if code == 0xFF or code in _WITHOUT_LENGTH:
            continue
        if code in (_SCAN, _END):
            return
        length = struct.unpack(">H", file.read(position, 2))[0]
        if length < 2:
            raise DamagedDataError(f"the segment at byte {position} has {length} bytes")
        yield code, position + 2, length - 2
        position += length


def longer_scans(data: bytes) -> bytes:
    """Return the stream with some more bytes at the end of each scan, which a complete scan does not need.

    If a scan ends early, the decoder silently makes up the rest; from longer scans it makes something else. Raises
    DamagedDataError for a stream without an end. An end within a segment, such as a thumbnail's, does not count.
    """
    parts, position, done, scanned = [], 2, 0, False
    while True:
        marker = _MARKER.search(data, position)
        if marker is None:
            raise DamagedDataError("it ends early")
        code, position = marker[1][0], marker.end()
        if scanned:
            parts += [data[done : marker.start()], _MORE]
            done = marker.start()
        if code == _END:
            return b"".join([*parts, data[done:position]])
        scanned = code == _SCAN
        if code not in _WITHOUT_LENGTH:
            if position + 2 > len(data):
                raise DamagedDataError("it ends early")
            position += struct.unpack_from(">H", data, position)[0]
