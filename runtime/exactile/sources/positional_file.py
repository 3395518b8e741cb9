"""Read a file at given positions.

Positional reads need no lock between threads, and, unlike with a memory map, what was read does not stay in the
process's resident memory.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from exactile.errors import SourceError


class DamagedDataError(Exception):
    """Stored bytes that are missing or wrong; becomes a SourceError naming file and chunk."""


class DiskError(DamagedDataError):
    """Bytes that the system cannot read: a failure of disk or network, not of the file's content."""


class PositionalFile:
    """A regular file, open for reading. Owns the file; ``close`` may be called twice.

    Raises SourceError if there is no such file or it may not be read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.name = os.fspath(path)
        try:
            # Opening a named pipe would wait for a writer forever, so the kind is checked first.
            if not stat.S_ISREG(Path(path).stat().st_mode):
                kind = "a directory" if Path(path).is_dir() else "not a regular file"
                raise SourceError(f"{self.name}: is {kind}; give the path of an image file")
            self._stream = Path(path).open("rb")  # noqa: SIM115 - closed by close()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise SourceError(f"{self.name}: cannot be opened: {reason}") from error
        self.size_bytes = os.fstat(self._stream.fileno()).st_size

    @property
    def stream(self) -> BinaryIO:
        """The same file as a stream, for parsers of its structure; positional reads do not move it."""
        return self._stream

    def read(self, offset: int, size_bytes: int) -> bytes:
        """Return exactly ``size_bytes`` from ``offset`` on. Raises DamagedDataError when the file ends before."""
        data = self._pread(size_bytes, offset)
        if len(data) == size_bytes:
            return data
        whole = bytearray(size_bytes)
        whole[: len(data)] = data
        self.read_into(offset + len(data), memoryview(whole)[len(data) :])
        return bytes(whole)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill ``buffer`` (bytes, contiguous) from ``offset`` on; the system may return less at a time."""
        done, descriptor = 0, self._descriptor()
        while done < len(buffer):
            try:
                count = os.preadv(descriptor, [buffer[done:] if done else buffer], offset + done)
            except OSError as error:
                raise DiskError(f"reading byte {offset + done} failed: {error.strerror}") from error
            if count == 0:
                raise self._ends_early(offset, len(buffer))
            done += count

    def close(self) -> None:
        self._stream.close()

    def _pread(self, size_bytes: int, offset: int) -> bytes:
        try:
            return os.pread(self._descriptor(), size_bytes, offset)
        except OSError as error:
            raise DiskError(f"reading byte {offset} failed: {error.strerror}") from error

    def check_open(self) -> None:
        """Raise SourceError after ``close``."""
        if self._stream.closed:
            raise SourceError(f"{self.name}: read after close")

    def _descriptor(self) -> int:
        self.check_open()
        return self._stream.fileno()

    def _ends_early(self, offset: int, size_bytes: int) -> DamagedDataError:
        # The bytes were in the file when it was opened and are gone: the file is being changed.
        kind = DiskError if offset + size_bytes <= self.size_bytes else DamagedDataError
        return kind(f"bytes {offset} to {offset + size_bytes} are needed, but the file ends at {self.size_bytes}")
