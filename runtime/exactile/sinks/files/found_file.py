"""The file of findings before the first box of the result: a small file beside the output, replaced as a whole.

::

    .NAME.statistics   one line, then CRC-32 and length of the JSON that follows

A truncated or damaged file is ignored.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from exactile.sinks.failures import os_errors_as_sink_errors
from exactile.sinks.files.part_file import sync_folder

_MAGIC = b"exactile statistics 1\n"
_HEAD = struct.Struct("<IQ")
_MOST_BYTES = 1 << 31
"""A larger file is not one of these."""


def found_path(path: Path) -> Path:
    """Return the path beside the output, whose links are resolved."""
    real = Path(os.path.realpath(path))
    return real.with_name(f".{real.name}.statistics")


def new_found_path(path: Path) -> Path:
    """Return the path of the new file before it replaces ``found_path``."""
    found = found_path(path)
    return found.with_name(f"{found.name}.new")


class FoundFile:
    """The file of the output ``path``. Whoever writes or removes it holds the lock of the journal."""

    def __init__(self, path: Path) -> None:
        self._output = path
        self.path, self._new = found_path(path), new_found_path(path)

    @property
    def exists(self) -> bool:
        return self.path.exists()

    @property
    def damaged(self) -> bool:
        """Whether there is a file that cannot be used."""
        return self.exists and self.read() is None

    def read(self) -> dict[str, Any] | None:
        """Return what was written; None if there is nothing, or it is damaged."""
        try:
            if self.path.stat().st_size > _MOST_BYTES:
                return None
            content = self.path.read_bytes()
        except OSError:
            return None
        start = len(_MAGIC) + _HEAD.size
        if not content.startswith(_MAGIC) or len(content) < start:
            return None
        crc, length = _HEAD.unpack(content[len(_MAGIC) : start])
        payload = content[start:]
        if len(payload) != length or zlib.crc32(payload) != crc:
            return None
        found: dict[str, Any] = json.loads(payload)
        return found

    def write(self, found: Mapping[str, Any]) -> None:
        """Replace the file at once; it is on the disk when this returns. Raises SinkError."""
        payload = json.dumps(found, sort_keys=True).encode()
        with os_errors_as_sink_errors(self._output):
            with self._new.open("wb") as file:
                file.write(_MAGIC + _HEAD.pack(zlib.crc32(payload), len(payload)) + payload)
                file.flush()
                os.fsync(file.fileno())
            self._new.replace(self.path)
        sync_folder(self.path.parent)

    def remove(self) -> None:
        """Remove the file; safe to call twice."""
        for path in (self.path, self._new):
            with suppress(OSError):
                path.unlink(missing_ok=True)
