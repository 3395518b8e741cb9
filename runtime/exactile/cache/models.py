"""Files of deployed models, each under a key; the least recently used are removed first.

Processes share the folder without locks: a file appears under its name when it is complete, and the last of several
writers wins. A folder that cannot be read or written only costs time.
"""

from __future__ import annotations

import os
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from exactile.cache.model_file import DamagedError, NotStorableError, Storable, pack, read
from exactile.machine.cache_folder import cache_folder, most_bytes

FOLDER = "models"
SUFFIX = ".model"
LARGEST_SHARE = 4
"""A model that takes more than this part of the whole size, one in four, is not kept."""

PART_AGE_S = 3600.0
"""A file that has been in writing for longer was left by a killed process."""


@dataclass(frozen=True, slots=True)
class ModelCache:
    """Files in ``folder``, ``most_bytes`` of them together at most."""

    folder: Path
    most_bytes: int

    @classmethod
    def of_user(cls) -> Self | None:
        """Return the user's cache; None if it is turned off or its place is unknown. Raises OptionError."""
        most = most_bytes()
        if not most:
            return None
        try:
            return cls(cache_folder() / FOLDER, most)
        except (ImportError, RuntimeError):  # a user without a home
            return None

    @property
    def largest_bytes(self) -> int:
        """Return the most bytes that one model may take."""
        return self.most_bytes // LARGEST_SHARE

    def kept(self, key: str) -> Storable | None:
        """Return the stored model; None if there is none. A damaged file is removed."""
        path = self._path(key)
        try:
            found = read(path)
        except DamagedError:
            with suppress(OSError):
                path.unlink()
            return None
        except OSError:
            return None
        with suppress(OSError):
            os.utime(path)
        return found

    def keep(self, key: str, value: Storable) -> bool:
        """Write ``value``; return False if it is too large or of a kind that files cannot hold, or there is no room."""
        try:
            packed = pack(value)
        except NotStorableError:
            return False
        if packed.size > self.largest_bytes:
            return False
        path = self._path(key)
        part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                with part.open("wb") as file:
                    packed.write(file)
                part.replace(path)
            finally:
                with suppress(OSError):
                    part.unlink(missing_ok=True)
            self._make_room(path)
        except OSError:
            return False
        return True

    def usage(self) -> tuple[int, int]:
        """Return the number of models, and their bytes."""
        found = self._files()
        return len(found), sum(size for _, size, _ in found)

    def is_writable(self) -> bool:
        """Return whether the folder exists and can be written, or can be created."""
        folder = next(one for one in (self.folder, *self.folder.parents) if one.exists())
        return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)

    def _make_room(self, newest: Path) -> None:
        """Remove the least recently used models, except ``newest``."""
        for path in self.folder.glob(f".*{SUFFIX}.*.part"):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > PART_AGE_S:
                    path.unlink()
        found = sorted(self._files())
        total = sum(size for _, size, _ in found)
        for _, size, path in found:
            if total <= self.most_bytes:
                return
            if path != newest:
                with suppress(OSError):
                    path.unlink()
                    total -= size

    def _files(self) -> list[tuple[int, int, Path]]:
        """Yield time of the last use, bytes and path of each model."""
        found = []
        for path in self.folder.glob(f"*{SUFFIX}"):
            with suppress(OSError):
                state = path.stat()
                found.append((state.st_mtime_ns, state.st_size, path))
        return found

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{SUFFIX}"
