"""Check whether an output may be written under a name."""

from __future__ import annotations

import os
from pathlib import Path

from exactile.errors import OutputExistsError, SinkError
from exactile.sinks.failures import os_errors_as_sink_errors


def check_writable(path: Path, *, overwrite: bool) -> None:
    """Check that ``path`` is free, or a file that may be replaced, in a folder that can be written.

    A symbolic link stands for its target. Raises OutputExistsError, or SinkError for any other reason.
    """
    target = Path(os.path.realpath(path))
    folder = target.parent
    with os_errors_as_sink_errors(path):
        if not folder.is_dir():
            what = "is not a folder" if folder.exists() else "does not exist"
            raise SinkError(f"cannot write {path}: {folder} {what}. What to do: create it, or choose another folder")
        if target.is_dir():
            raise SinkError(f"cannot write {path}: it is a folder. What to do: name a file in it")
        if target.exists():
            _check_replaceable(path, overwrite=overwrite)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise SinkError(
                f"cannot write {path}: you may not write in {folder}. "
                "What to do: choose another folder, or change its permissions"
            )


def _check_replaceable(path: Path, *, overwrite: bool) -> None:
    if not path.is_file():
        raise SinkError(f"cannot write {path}: it is a device, pipe or socket. What to do: name a file")
    if not overwrite:
        raise OutputExistsError(
            f"{path} exists already. "
            "What to do: pass --overwrite (overwrite=True) to replace it, or choose another name"
        )
