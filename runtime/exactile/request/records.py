"""Records of what made a result: ``RESULT.json``, and ``.RESULT.json.pending`` until there is a result."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exactile.errors import OutputExistsError, ResumeError
from exactile.sinks.files.whole_file import replace_file
from exactile.sinks.resume.description import differences


def record_path(target: Path) -> Path:
    """Return the path of the record of a result."""
    return target.with_name(f"{target.name}.json")


def pending_path(target: Path) -> Path:
    """Return the path of the record while there is no result."""
    return target.with_name(f".{target.name}.json.pending")


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write the record. Raises SinkError."""
    replace_file(path, (json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode())


def check_complete(target: Path, asked: Mapping[str, Any], *, resume: bool) -> None:
    """Check a complete result: it is fine if the same run made it and is resumed.

    Raises OutputExistsError, ResumeError.
    """
    if not resume:
        raise OutputExistsError(f"{target} exists already. What to do: pass --overwrite, or --resume to leave it")
    try:
        # The pending one is of a process that was killed between the result and its record.
        record = next(path for path in (record_path(target), pending_path(target)) if path.exists())
        made_by = json.loads(record.read_text(encoding="utf-8"))["run"]
    except (StopIteration, OSError, ValueError, KeyError, TypeError) as error:
        raise ResumeError(f"{target} exists, and nothing beside it says what made it") from error
    found = differences({key: made_by.get(key) for key in asked}, asked)
    if found:
        raise ResumeError(f"{target} exists, and another run made it: {'; '.join(found)}")
