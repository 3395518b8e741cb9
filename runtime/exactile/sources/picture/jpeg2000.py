"""The header of a JPEG 2000 picture: a file of boxes (.jp2) or the codestream alone (.j2k)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from exactile.errors import SourceError
from exactile.sources.jpeg2000_markers import CODESTREAM
from exactile.sources.picture.header import PictureHeader, sample_type
from exactile.sources.positional_file import DamagedDataError, PositionalFile

_GREY, _SRGB = 17, 16
_LARGEST_BOX_BYTES = 1 << 16


def jpeg2000_header(file: PositionalFile) -> PictureHeader:
    """Read the header: grey or RGB and alpha, of up to 16 bits, or plain channels. Raises DamagedDataError,
    SourceError.
    """
    if file.read(0, 4) == CODESTREAM:
        return _of_codestream(file, 0, None)
    alpha, sizes = None, b""
    for name, start, length in _boxes(file, 0, file.size_bytes):
        if name == b"jp2h":
            alpha, sizes = _colours(file, start, length)
        elif name == b"jp2c":
            found = _of_codestream(file, start, alpha)
            _check_same(sizes, found, file.read(start + 42, 1))
            return found
    raise DamagedDataError("it has no codestream")


def _of_codestream(file: PositionalFile, start: int, alpha: int | None) -> PictureHeader:
    """Read SIZ, which comes first."""
    if file.read(start, 4) != CODESTREAM:
        raise DamagedDataError("its codestream does not begin with its size")
    right, bottom, left, top = struct.unpack(">IIII", file.read(start + 8, 16))
    channels = struct.unpack(">H", file.read(start + 40, 2))[0]
    if not (1 <= channels <= 16384 and left < right and top < bottom):
        raise DamagedDataError(f"{bottom} x {right} pixels from {top}, {left} on in {channels} channels are no picture")
    parts = set(struct.iter_unpack("BBB", file.read(start + 42, 3 * channels)))
    if len(parts) > 1 or any(part[1:] != (1, 1) for part in parts) or next(iter(parts))[0] & 0x80:
        raise SourceError(
            f"{file.name}: is a JPEG 2000 picture whose channels have sizes or bits of their own, or signs, which is "
            "not read; store it as TIFF"
        )
    return PictureHeader(
        height=bottom - top,
        width=right - left,
        channels=channels,
        dtype=sample_type(next(iter(parts))[0] + 1, file),
        alpha=alpha if alpha is not None and alpha < channels else None,
        scratch=5.2,
    )


def _check_same(sizes: bytes, found: PictureHeader, depth: bytes) -> None:
    """Raise DamagedDataError if the box of sizes contradicts the codestream."""
    if len(sizes) < 11:
        raise DamagedDataError("it has no sizes before its codestream")
    said = struct.unpack_from(">IIH", sizes)
    if said != (found.height, found.width, found.channels) or sizes[10:11] not in (depth, b"\xff"):
        raise DamagedDataError(f"its sizes, {said}, are not those of its codestream")


def _colours(file: PositionalFile, start: int, length: int) -> tuple[int | None, bytes]:
    """Return the channel of alpha in the header's boxes, and its sizes. Raises SourceError for other colours."""
    alpha, sizes = None, b""
    for name, inner, size in _boxes(file, start, start + length):
        if name in (b"pclr", b"cmap"):
            raise SourceError(
                f"{file.name}: is a JPEG 2000 picture with a palette, which is not read; store it as TIFF"
            )
        content = file.read(inner, min(size, _LARGEST_BOX_BYTES))
        if name == b"colr" and content[:1] == b"\x01":
            space = struct.unpack_from(">I", content.ljust(7, b"\0"), 3)[0]
            if space not in (_GREY, _SRGB):
                raise SourceError(
                    f"{file.name}: is a JPEG 2000 picture whose colours ({space}) are neither grey nor RGB, which is "
                    "not read; store it as TIFF"
                )
        if name == b"ihdr":
            sizes = content
        if name == b"cdef":
            kinds = [struct.unpack_from(">HH", content, at) for at in range(2, len(content) - 5, 6)]
            alpha = next((channel for channel, kind in kinds if kind in (1, 2)), None)
    return alpha, sizes


def _boxes(file: PositionalFile, start: int, stop: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, start and length of the contents of each box between two bytes of the file."""
    position = start
    while position + 8 <= stop:
        length, name = struct.unpack(">I4s", file.read(position, 8))
        head = 8
        if length == 1:
            length, head = struct.unpack(">Q", file.read(position + 8, 8))[0], 16
        elif length == 0:  # up to the end
            length = stop - position
        if length < head:
            raise DamagedDataError(f"the box at byte {position} has {length} bytes")
        yield name, position + head, length - head
        position += length
