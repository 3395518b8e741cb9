"""Check the headers of a JPEG XR stream, in its container and in its codestream (ITU-T T.832).

The library crops or pads an image of another size, and converts one of another type; jxrlib leaves memory uninitialised
if the codestream has another size than the container.
"""

from __future__ import annotations

import struct

from exactile.sources.chunks.reader import UndecodableError
from exactile.sources.czi.pixel_kinds import PixelKind
from exactile.sources.positional_file import PositionalFile

_FORMAT, _WIDTH, _HEIGHT, _STREAM = 0xBC01, 0xBC80, 0xBC81, 0xBCC0
_MOST_TAGS = 64
_SHORT = 3
_FORMATS = bytes.fromhex("24c3dd6f034efe4bb1853d77768dc9")
"""Leading bytes of the identifiers of pixel formats."""

_LAST = {"Gray8": 0x08, "Gray16": 0x0B, "Bgr24": 0x0C, "Gray32Float": 0x11, "Bgr48": 0x15}
"""Their last bytes."""

_CODED = {"Gray8": 0x01, "Gray16": 0x02, "Bgr24": 0x71, "Gray32Float": 0x07, "Bgr48": 0x72}
"""Colours and bit depth in the codestream."""

_SIGNATURE = b"WMPHOTO\0"
_FLAGS_AT, _CODED_AT, _SIZE_AT, _HEADER_BYTES = 10, 11, 12, 20
_SHORT_SIZE, _ALPHA = 0x80, 0x01


def check_jpegxr(file: PositionalFile, at: int, size: int, shape: tuple[int, int], kind: PixelKind) -> None:
    """Raise UndecodableError unless the ``size`` bytes at byte ``at`` are JPEG XR of ``shape`` (H, W) and ``kind``."""
    tags = _tags(file, at, size)
    found = (tags.get(_HEIGHT, 0), tags.get(_WIDTH, 0))
    if found != shape:
        raise UndecodableError(f"its JPEG XR is of {found} pixels instead of {shape}")
    wanted = _FORMATS + bytes([_LAST[kind.name]])
    first = tags.get(_STREAM, 0)
    format_at = tags.get(_FORMAT, 0)
    if max(format_at + len(wanted), first + _HEADER_BYTES) > size:
        raise UndecodableError("its JPEG XR is cut off")
    header = file.read(at + first, _HEADER_BYTES)
    if header[: len(_SIGNATURE)] != _SIGNATURE or _coded_shape(header) != shape:
        raise UndecodableError(f"the codestream of its JPEG XR is not of {shape} pixels")
    if file.read(at + format_at, len(wanted)) != wanted or header[_CODED_AT] != _CODED[kind.name]:
        raise UndecodableError(f"its JPEG XR does not hold {kind.name}")
    if header[_FLAGS_AT] & _ALPHA:
        raise UndecodableError("its JPEG XR has an alpha channel")


def _coded_shape(header: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from(">HH" if header[_FLAGS_AT] & _SHORT_SIZE else ">II", header, _SIZE_AT)
    return height + 1, width + 1


def _tags(file: PositionalFile, at: int, size: int) -> dict[int, int]:
    """Return the tags of the container's directory, by number: a value, or where it lies."""
    if size < 8:
        raise UndecodableError("its JPEG XR is cut off")
    magic, first = struct.unpack("<4sI", file.read(at, 8))
    if magic[:3] != b"II\xbc" or first + 2 > size:
        raise UndecodableError("its JPEG XR is none")
    count = struct.unpack("<H", file.read(at + first, 2))[0]
    if count > _MOST_TAGS or first + 2 + 12 * count > size:
        raise UndecodableError("the directory of its JPEG XR is damaged")
    entries = struct.iter_unpack("<HHII", file.read(at + first + 2, 12 * count))
    # A value of 16 bits fills the lower half of its field.
    return {tag: value & 0xFFFF if kind == _SHORT else value for tag, kind, _, value in entries}
