"""Read the zip archives of models: few files, small descriptions; nothing is extracted to disk."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from exactile.errors import ModelError

LARGEST_DESCRIPTION_BYTES = 1 << 20
LARGEST_MODEL_BYTES = 2 << 30


@dataclass(frozen=True, slots=True)
class Archive:
    """The archive at ``path`` and the names in it. Raises ModelError where it cannot be read."""

    path: Path
    names: tuple[str, ...]

    @classmethod
    def of(cls, path: Path) -> Self | None:
        """Return the archive; None where ``path`` is not a zip archive."""
        try:
            if not path.is_file() or not zipfile.is_zipfile(path):
                return None
            with zipfile.ZipFile(path) as archive:
                return cls(path, tuple(archive.namelist()))
        except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
            return None

    def ending(self, suffix: str) -> tuple[str, ...]:
        """Return the names at the top of the archive that end in ``suffix``."""
        return tuple(name for name in self.names if "/" not in name and name.lower().endswith(suffix))

    def only(self, suffix: str) -> str:
        """Return the name that ends in ``suffix``. Raises ModelError where there is none, or more than one."""
        found = self.ending(suffix)
        if len(found) != 1:
            listed = ", ".join(found) or "none"
            raise ModelError(f"{self.path}: one file that ends in {suffix} is expected in it, there are: {listed}")
        return found[0]

    def description(self, name: str) -> bytes:
        """Read a small file. Raises ModelError."""
        return self._read(name, LARGEST_DESCRIPTION_BYTES)

    def model(self, name: str) -> bytes:
        """Read the network. Raises ModelError."""
        return self._read(name, LARGEST_MODEL_BYTES)

    def _read(self, name: str, largest_bytes: int) -> bytes:
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(name) as file:
                data = file.read(largest_bytes + 1)
        except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
            raise ModelError(f"{self.path}: {name} in it cannot be read: {error}") from error
        if len(data) > largest_bytes:
            raise ModelError(f"{self.path}: {name} in it has more than {largest_bytes} bytes; such a file is smaller")
        return data
