"""The journal of an unfinished output: a file beside it, only ever appended to, checked record by record.

::

    .NAME.journal   one line, then records: kind, CRC-32, length, payload

    RUN   what is being run, as JSON; the first record
    TILE  one encoded tile: level, plane, number, where it lies in the output, CRC-32 of it
    PART  pixels of a tile that is not complete yet, and the box of the run that they came with
    BOX   every tile and part of this box is above: it need not be computed again

A truncated or damaged record ends the journal: what follows it counts as never written.
"""

from __future__ import annotations

import enum
import fcntl
import json
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exactile.errors import SinkError
from exactile.geometry import Box, Span
from exactile.sinks.failures import os_errors_as_sink_errors
from exactile.sinks.tiles.store import StoredTile, TileKey

_MAGIC = b"exactile journal 1\n"
_HEAD = struct.Struct("<BxxxIQ")
_BOX = struct.Struct("<4q")
_TILE = struct.Struct("<IIQQQI")
_PART = struct.Struct("<4q4qQ")
_LONGEST_RECORD_BYTES = 1 << 34


class Kind(enum.IntEnum):
    RUN = 1
    TILE = 2
    PART = 3
    BOX = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class PartialTile:
    """Pixels ``part`` of tile ``tile``, which came with ``box``; ``data`` is compressed by the owner of the journal."""

    box: Box
    part: Box
    tile: int
    data: bytes


Record = StoredTile | PartialTile | Box


def framed(record: Record) -> bytes:
    """Return ``record`` as it is appended, checksum included. Callable in any thread."""
    match record:
        case StoredTile(key=key):
            where = record.offset_bytes, record.size_bytes, record.crc
            return _framed(Kind.TILE, _TILE.pack(key.level, key.plane, key.tile, *where))
        case PartialTile():
            head = _PART.pack(*_numbers(record.box), *_numbers(record.part), record.tile)
            return _framed(Kind.PART, head, record.data)
        case Box():
            return _framed(Kind.BOX, _BOX.pack(*_numbers(record)))


def journal_path(path: Path) -> Path:
    """Return the path beside the output, whose links are resolved."""
    real = Path(os.path.realpath(path))
    return real.with_name(f".{real.name}.journal")


class Journal:
    """Owns the file and a lock on it: one run at a time writes an output.

    One thread uses it at a time.
    """

    def __init__(self, path: Path) -> None:
        """Open or create the journal of the output ``path``. Raises SinkError if another run holds it."""
        self._output = path
        self.path = journal_path(path)
        self._descriptor = -1
        self._end_bytes = 0
        while not self._opened():
            self.close()

    def _opened(self) -> bool:
        """Open and lock it; return False if the run that held it has removed the file meanwhile."""
        with os_errors_as_sink_errors(self._output):
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.close()
            raise SinkError(
                f"cannot write {self._output}: another run is writing it. "
                "What to do: wait for it, or choose another name"
            ) from error
        try:
            return os.path.samestat(os.fstat(self._descriptor), self.path.stat())
        except OSError:
            return False

    def clear(self) -> None:
        """Remove its content."""
        with os_errors_as_sink_errors(self._output):
            os.ftruncate(self._descriptor, 0)
        self._end_bytes = 0

    def start(self, run: Mapping[str, Any]) -> None:
        """Start again: remove the old content."""
        self.clear()
        with os_errors_as_sink_errors(self._output):
            self._write(_MAGIC + _framed(Kind.RUN, json.dumps(run, sort_keys=True).encode()))

    def run(self) -> dict[str, Any] | None:
        """Return what was being run; None if the journal is empty or cannot be read."""
        kind, payload, _ = next(self._records(), (None, b"", 0))
        return json.loads(payload) if kind is Kind.RUN else None

    def read(self) -> Iterator[tuple[Record, int]]:
        """Yield the records after the first, each with where it ends, in bytes."""
        for kind, payload, end_bytes in self._records():
            match kind:
                case Kind.TILE:
                    level, plane, tile, offset, size, crc = _TILE.unpack(payload)
                    key = TileKey(level=level, plane=plane, tile=tile)
                    yield StoredTile(key=key, offset_bytes=offset, size_bytes=size, crc=crc), end_bytes
                case Kind.PART:
                    numbers = _PART.unpack(payload[: _PART.size])
                    box, part, data = _box(*numbers[:4]), _box(*numbers[4:8]), payload[_PART.size :]
                    yield PartialTile(box=box, part=part, tile=numbers[8], data=data), end_bytes
                case Kind.BOX:
                    yield _box(*_BOX.unpack(payload)), end_bytes

    def append(self, records: Iterable[bytes]) -> None:
        """Append records that were ``framed``, in one write. Raises SinkError if the disk does not take them."""
        with os_errors_as_sink_errors(self._output):
            self._write(b"".join(records))

    def cut(self, end_bytes: int) -> None:
        """Drop what follows ``end_bytes``; records are appended there."""
        with os_errors_as_sink_errors(self._output):
            os.ftruncate(self._descriptor, end_bytes)
        self._end_bytes = end_bytes

    def sync(self) -> None:
        """Flush what was appended to the disk."""
        with os_errors_as_sink_errors(self._output):
            os.fdatasync(self._descriptor)

    def remove(self) -> None:
        """Delete the file; safe to call twice."""
        if self._descriptor >= 0:  # otherwise it may be another run's by now
            with suppress(OSError):
                self.path.unlink(missing_ok=True)
        self.close()

    @property
    def held(self) -> bool:
        """Whether the lock is held: neither left, nor removed, nor closed."""
        return self._descriptor >= 0

    def leave(self) -> None:
        """Release the lock, and keep the file if there is anything in it; safe to call twice."""
        if self._descriptor >= 0 and not os.fstat(self._descriptor).st_size:
            self.remove()
        self.close()

    def close(self) -> None:
        """Keep the file, release the lock; safe to call twice."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with suppress(OSError):
                os.close(descriptor)

    def _write(self, data: bytes) -> None:
        written = 0
        while written < len(data):
            written += os.pwrite(self._descriptor, data[written:], self._end_bytes + written)
        self._end_bytes += len(data)

    def _records(self) -> Iterator[tuple[Kind, bytes, int]]:
        with os_errors_as_sink_errors(self._output):
            size_bytes = os.fstat(self._descriptor).st_size
            if os.pread(self._descriptor, len(_MAGIC), 0) != _MAGIC:
                return
            at = len(_MAGIC)
            while at + _HEAD.size <= size_bytes:
                kind, crc, length = _HEAD.unpack(os.pread(self._descriptor, _HEAD.size, at))
                end = at + _HEAD.size + length
                if kind not in list(Kind) or length > _LONGEST_RECORD_BYTES or end > size_bytes:
                    return
                payload = os.pread(self._descriptor, length, at + _HEAD.size)
                if len(payload) != length or zlib.crc32(payload) != crc:
                    return
                yield Kind(kind), payload, end
                at = end


def _framed(kind: Kind, *pieces: bytes) -> bytes:
    crc = 0
    for piece in pieces:
        crc = zlib.crc32(piece, crc)
    return b"".join([_HEAD.pack(kind, crc, sum(map(len, pieces))), *pieces])


def _numbers(box: Box) -> tuple[int, int, int, int]:
    return box.y.start, box.y.stop, box.x.start, box.x.stop


def _box(y_start: int, y_stop: int, x_start: int, x_stop: int) -> Box:
    return Box(Span(y_start, y_stop), Span(x_start, x_stop))
