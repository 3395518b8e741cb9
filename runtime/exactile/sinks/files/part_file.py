"""A file that gets its name only when it is complete."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from exactile.sinks.failures import os_errors_as_sink_errors
from exactile.sinks.files.target import check_writable

_MOST_PIECES = 512
"""Pieces passed to the system at a time; it accepts 1024."""

_NO_PREALLOCATION = {errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS, errno.ENODEV}


class PartFile:
    """``.NAME.XXXXXXXX.part`` beside NAME, which ``publish`` renames to NAME and ``discard`` removes.

    With ``kept_name`` it is ``.NAME.part``, so that a later run finds it: ``resumed`` opens the existing one. Owns the
    file and its descriptor. Not locked: its owner calls one method at a time, except that ``sync`` may run concurrently
    with the others, and must have ended before the file is closed. Every method raises SinkError instead of OSError.
    """

    def __init__(self, path: Path, *, overwrite: bool, kept_name: bool = False, resumed: bool = False) -> None:
        check_writable(path, overwrite=overwrite)
        self._path = Path(os.path.realpath(path))  # a link stays a link, to the new file
        self._overwrite = overwrite
        self.published = False
        self.part_path = part_path(path) if kept_name else _new_name(self._path)
        flags = 0 if resumed else os.O_CREAT | (os.O_TRUNC if kept_name else os.O_EXCL)
        with os_errors_as_sink_errors(path):
            # 0o666 minus the user's umask, as for any file; the tempfile module would leave 0o600.
            self._descriptor = os.open(self.part_path, os.O_RDWR | flags | os.O_CLOEXEC, 0o666)

    @property
    def size_bytes(self) -> int:
        with os_errors_as_sink_errors(self._path):
            return os.fstat(self._descriptor).st_size

    def preallocate(self, size_bytes: int) -> None:
        """Reserve the disk space now, so that a full disk is noticed before the work; do nothing if unsupported."""
        with os_errors_as_sink_errors(self._path):
            try:
                os.posix_fallocate(self._descriptor, 0, size_bytes)
            except OSError as error:
                if error.errno not in _NO_PREALLOCATION:
                    raise

    def write_at(self, data: bytes | memoryview, offset_bytes: int) -> None:
        """Write all of ``data`` (bytes, or a C-contiguous view of bytes) at ``offset_bytes``."""
        with os_errors_as_sink_errors(self._path):
            self._write_all(data, offset_bytes)

    def write_all_at(self, pieces: Sequence[bytes | memoryview], offset_bytes: int) -> None:
        """Write ``pieces`` one after the other, the first at ``offset_bytes``, in as few calls as possible."""
        with os_errors_as_sink_errors(self._path):
            for first in range(0, len(pieces), _MOST_PIECES):
                some = pieces[first : first + _MOST_PIECES]
                size_bytes = sum(map(len, some))
                if (
                    os.pwritev(self._descriptor, some, offset_bytes) < size_bytes
                ):  # a full disk raises an error on the next call
                    self._write_all(b"".join(some), offset_bytes)
                offset_bytes += size_bytes

    def write_rows_at(self, data: memoryview, offset_bytes: int, *, row_bytes: int, stride_bytes: int) -> None:
        """Write ``data`` in rows of ``row_bytes``, the first at ``offset_bytes``, each ``stride_bytes`` further on."""
        with os_errors_as_sink_errors(self._path):
            for row, start in enumerate(range(0, data.nbytes, row_bytes)):
                self._write_all(data[start : start + row_bytes], offset_bytes + row * stride_bytes)

    def read_at(self, size_bytes: int, offset_bytes: int) -> bytes:
        """Return at most ``size_bytes`` from ``offset_bytes`` on; less at the end of the file."""
        with os_errors_as_sink_errors(self._path):
            pieces = []
            while size_bytes > 0 and (piece := os.pread(self._descriptor, size_bytes, offset_bytes)):
                pieces.append(piece)
                size_bytes, offset_bytes = size_bytes - len(piece), offset_bytes + len(piece)
            return b"".join(pieces)

    def cut(self, size_bytes: int) -> None:
        """Drop everything after the first ``size_bytes``."""
        with os_errors_as_sink_errors(self._path):
            os.ftruncate(self._descriptor, size_bytes)

    def sync(self) -> None:
        """Flush what was written to the disk."""
        with os_errors_as_sink_errors(self._path):
            os.fdatasync(self._descriptor)

    def keep(self) -> None:
        """Close the file and leave it for a later run; safe to call twice and after ``publish``."""
        if self._descriptor >= 0:
            self._close()

    def publish(self) -> None:
        """Flush the file to the disk and give it its name. After a failure, ``discard`` still has to be called."""
        with os_errors_as_sink_errors(self._path):
            os.fsync(self._descriptor)
            # Somebody may have written the output during the run.
            check_writable(self._path, overwrite=self._overwrite)
            self.part_path.replace(self._path)
        self.published = True
        self._close()
        sync_folder(self._path.parent)

    def discard(self) -> None:
        """Remove what was written so far; safe to call twice and after ``publish``."""
        if self._descriptor < 0:
            return
        self._close()
        with suppress(OSError):
            self.part_path.unlink(missing_ok=True)

    def _write_all(self, data: bytes | memoryview, offset_bytes: int) -> None:
        written_bytes = os.pwrite(self._descriptor, data, offset_bytes)
        while written_bytes < len(data):  # a full disk, or more than 2 GB at once
            rest = memoryview(data)[written_bytes:]
            written_bytes += os.pwrite(self._descriptor, rest, offset_bytes + written_bytes)

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        with suppress(OSError):  # fsync has reported what matters
            os.close(descriptor)


def part_path(path: Path) -> Path:
    """Return ``.NAME.part``, beside the output, whose links are followed."""
    real = Path(os.path.realpath(path))
    return real.with_name(f".{real.name}.part")


def _new_name(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")


def sync_folder(path: Path) -> None:
    """Make new names in the folder survive a power cut, where the file system can."""
    with suppress(OSError):
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
