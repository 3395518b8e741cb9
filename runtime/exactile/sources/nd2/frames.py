"""The places of frames in an ND2 file, from the table at its end.

nd2 itself returns zeros for frames that are missing or truncated; so each frame that is read is looked up here.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from exactile.errors import SourceError
from exactile.sources.positional_file import DamagedDataError, PositionalFile

_MAP_PLACE = struct.Struct("<32sQ")
_MAP_SIGNATURE = b"ND2 CHUNK MAP SIGNATURE 0000001!"
_HEADER = struct.Struct("<IIQ")
_CHUNK_MAGIC = 0x0ABECEDA
_ENTRY = struct.Struct("<QQ")
_FRAME = b"ImageDataSeq|"
_TIME_BYTES = 8
"""Bytes before the samples of a frame."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Nd2Frames:
    """Offsets of the chunks that hold frames, by their numbers."""

    file: PositionalFile
    offsets: dict[int, int]

    @property
    def count(self) -> int:
        return len(self.offsets)

    def place(self, frame: int) -> tuple[int, int]:
        """Return the offset of the samples of a frame, and the number of their bytes. Raises DamagedDataError."""
        offset = self.offsets.get(frame)
        if offset is None:
            raise DamagedDataError(f"frame {frame} was not recorded; {self.count} frames are in the file")
        magic, name_bytes, data_bytes = _HEADER.unpack(self.file.read(offset, _HEADER.size))
        name = f"ImageDataSeq|{frame}!".encode()
        there = self.file.read(offset + _HEADER.size, len(name)) if magic == _CHUNK_MAGIC else b""
        if there != name:
            raise DamagedDataError(f"frame {frame} is not where the table at the end of the file says")
        start = offset + _HEADER.size + name_bytes + _TIME_BYTES
        size_bytes = data_bytes - _TIME_BYTES
        if size_bytes < 0 or start + size_bytes > self.file.size_bytes:
            raise DamagedDataError(f"frame {frame} ends beyond the file; copy it again")
        return start, size_bytes


def read_frames(file: PositionalFile) -> Nd2Frames:
    """Read the table. Raises SourceError if it is damaged or truncated."""
    try:
        return Nd2Frames(file=file, offsets=_offsets(_table(file)))
    except (DamagedDataError, ValueError, struct.error) as error:
        raise SourceError(f"{file.name}: its table of frames is damaged: {error}; copy it again") from error


def _table(file: PositionalFile) -> bytes:
    signature, place = _MAP_PLACE.unpack(file.read(max(0, file.size_bytes - _MAP_PLACE.size), _MAP_PLACE.size))
    if signature != _MAP_SIGNATURE or place + _HEADER.size > file.size_bytes:
        raise DamagedDataError("it is not at the end of the file")
    magic, name_bytes, data_bytes = _HEADER.unpack(file.read(place, _HEADER.size))
    start = place + _HEADER.size + name_bytes
    if magic != _CHUNK_MAGIC or start + data_bytes > file.size_bytes:
        raise DamagedDataError(f"it is not at byte {place}")
    return file.read(start, data_bytes)


def _offsets(table: bytes) -> dict[int, int]:
    """Yield names, each with the offset and the size of its chunk, up to the signature."""
    found: dict[int, int] = {}
    at = 0
    while True:
        end = table.index(b"!", at) + 1
        name = table[at:end]
        if name == _MAP_SIGNATURE:
            return found
        offset, _ = _ENTRY.unpack_from(table, end)
        if name.startswith(_FRAME):
            found[int(name[len(_FRAME) : -1])] = offset
        at = end + _ENTRY.size
