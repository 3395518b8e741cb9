"""A folder that gets its name only when it is complete."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

from exactile.errors import OutputExistsError, SinkError
from exactile.sinks.failures import os_errors_as_sink_errors
from exactile.sinks.files.part_file import part_path, sync_folder


class PartFolder:
    """``.NAME.part`` beside NAME, which ``publish`` renames to NAME and ``discard`` removes.

    An existing one of an earlier run is opened with ``resumed``, else emptied. If ``kept_name`` is false the name has
    random letters. Every method raises SinkError instead of OSError.
    """

    def __init__(self, path: Path, *, overwrite: bool, kept_name: bool, resumed: bool) -> None:
        check_folder_writable(path, overwrite=overwrite)
        self._path = Path(os.path.realpath(path))
        self._overwrite = overwrite
        self._open = True
        self.published = False
        random_name = self._path.with_name(f".{self._path.name}.{secrets.token_hex(4)}.part")
        self.part_path = part_path(path) if kept_name else random_name
        with os_errors_as_sink_errors(path):
            if not resumed:
                shutil.rmtree(self.part_path, ignore_errors=True)
                self.part_path.mkdir()

    def publish(self) -> None:
        """Give it its name, replacing what may be overwritten.

        After a failure, ``discard`` still has to be called.
        """
        with os_errors_as_sink_errors(self._path):
            check_folder_writable(self._path, overwrite=self._overwrite)
            old = self._path.with_name(f".{self._path.name}.{secrets.token_hex(4)}.old")
            if self._path.exists():
                self._path.rename(old)
            self.part_path.rename(self._path)
        self.published, self._open = True, False
        shutil.rmtree(old, ignore_errors=True)
        sync_folder(self._path.parent)

    def keep(self) -> None:
        """Leave it for a later run."""
        self._open = False

    def discard(self) -> None:
        """Remove what was written so far; safe to call twice and after ``publish``."""
        if self._open:
            self._open = False
            shutil.rmtree(self.part_path, ignore_errors=True)


def check_folder_writable(path: Path, *, overwrite: bool) -> None:
    """Check that the folder ``path`` is free or may be replaced, in a folder that can be written.

    Raises OutputExistsError, and SinkError for any other reason.
    """
    target = Path(os.path.realpath(path))
    with os_errors_as_sink_errors(path):
        if target.exists() and not target.is_dir():
            raise SinkError(f"cannot write {path}: it is a file. What to do: choose another name")
        if target.exists() and not overwrite:
            raise OutputExistsError(
                f"{path} exists already. "
                "What to do: pass --overwrite (overwrite=True) to replace it, or choose another name"
            )
        if not target.parent.is_dir():
            raise SinkError(f"cannot write {path}: {target.parent} does not exist. What to do: create it")
        if not os.access(target.parent, os.W_OK | os.X_OK):
            raise SinkError(
                f"cannot write {path}: you may not write in {target.parent}. What to do: choose another folder"
            )
