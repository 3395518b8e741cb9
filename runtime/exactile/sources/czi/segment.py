"""Check the header of a stored sub-block before the library decodes it.

If there are fewer stored pixels than there should be, the library pads them with zeros, and if they are of another size
or type it crops and converts them, silently. Such a sub-block is damaged here.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from exactile.sources.chunks.reader import UndecodableError
from exactile.sources.czi.directory import DIMENSION_BYTES, ENTRY_BYTES, MOST_DIMENSIONS, SEGMENT_BYTES
from exactile.sources.czi.jpegxr import check_jpegxr
from exactile.sources.czi.pixel_kinds import PixelKind
from exactile.sources.positional_file import PositionalFile

_SIZES_BYTES = 16
_LEAST_HEAD_BYTES = 256
_MOST_DATA_BYTES = (1 << 31) - 1
_START_BYTES = 24
_ZSTD = b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredBlock:
    """A sub-block as the directory has it: its first byte in the file, its own pixels, how they are compressed."""

    position: int
    height: int
    width: int
    kind: PixelKind
    compression: int

    @property
    def pixel_bytes(self) -> int:
        return self.height * self.width * self.kind.pixel_bytes


def check_block(file: PositionalFile, block: StoredBlock) -> None:
    """Raise UndecodableError, or DamagedDataError if the file ends, unless ``block`` holds all of its pixels."""
    at, size = _data_place(file, block.position)
    if block.compression == 0:
        if size < block.pixel_bytes:
            raise UndecodableError(f"{size} bytes are stored for {block.pixel_bytes} of pixels")
        return
    start = file.read(at, min(size, _START_BYTES))
    if block.compression == 4:
        check_jpegxr(file, at, size, (block.height, block.width), block.kind)
        return
    if block.compression == 6:
        start = _without_header(start, block.kind)
    decoded = _zstd_bytes(start)
    if decoded != block.pixel_bytes:
        raise UndecodableError(f"it decodes to {decoded} bytes instead of {block.pixel_bytes}")


def _data_place(file: PositionalFile, position: int) -> tuple[int, int]:
    """Return where its stored pixels begin, and their bytes."""
    head = file.read(position, SEGMENT_BYTES + _SIZES_BYTES + ENTRY_BYTES)
    name, allocated, used, metadata, attachment, size = struct.unpack_from("<16sqqiiq", head)
    dimensions = struct.unpack_from("<i", head, len(head) - 4)[0]
    if name.rstrip(b"\0") != b"ZISRAWSUBBLOCK" or not 0 <= dimensions <= MOST_DIMENSIONS:
        raise UndecodableError(f"no sub-block lies at byte {position}")
    described = max(_LEAST_HEAD_BYTES, _SIZES_BYTES + ENTRY_BYTES + DIMENSION_BYTES * dimensions)
    total = described + metadata + attachment + size
    # Early versions left one of the sizes 0, or gave both the same value.
    if min(metadata, attachment, size) < 0 or used not in {0, allocated, total}:
        raise UndecodableError(f"its parts have {total} bytes, but it has {used}")
    if size > _MOST_DATA_BYTES:
        raise UndecodableError(f"it has {size} bytes, but pylibCZIrw reads {_MOST_DATA_BYTES} at most")
    if position + SEGMENT_BYTES + total > file.size_bytes:
        raise UndecodableError(f"it reaches to byte {position + SEGMENT_BYTES + total}, the file to {file.size_bytes}")
    return position + SEGMENT_BYTES + described + metadata, size


def _without_header(start: bytes, kind: PixelKind) -> bytes:
    """Return what follows the header that CZI puts before the zstd frame."""
    if start[:1] == b"\x01":
        return start[1:]
    if start[:2] != b"\x03\x01" or len(start) < 3:
        raise UndecodableError("its header of zstd is invalid")
    if start[2] & 1 and kind.name == "Bgr48":
        raise UndecodableError(
            "its bytes are packed by halves, and pylibCZIrw reads such colours of 16 bits wrongly; save it with ZEN"
            " without compression"
        )
    return start[3:]


def _zstd_bytes(start: bytes) -> int:
    """Return the decoded size that a zstd frame states (RFC 8878, 3.1.1.1)."""
    if start[:4] != _ZSTD or len(start) < 6:
        raise UndecodableError("its zstd frame is none")
    descriptor = start[4]
    single = descriptor >> 5 & 1
    size = (1 if single else 0, 2, 4, 8)[descriptor >> 6]
    first = 5 + (1 - single) + (0, 1, 2, 4)[descriptor & 3]
    found = int.from_bytes(start[first : first + size], "little")
    if not size:
        raise UndecodableError("its zstd frame does not say its size")
    return found + 256 if size == 2 else found
