"""Detect what an interrupted run has left beside its output, and lock the output."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from exactile.errors import OutputExistsError
from exactile.geometry import Box
from exactile.sinks.files.found_file import FoundFile, found_path
from exactile.sinks.files.part_file import part_path
from exactile.sinks.resume.journal import Journal, journal_path


def is_something_left(path: Path) -> bool:
    """Return whether there are files of an unfinished run beside the output ``path``."""
    return journal_path(path).exists() or found_path(path).exists()


def left_in_journal(path: Path, journal: Journal) -> Mapping[str, Any] | None:
    """Return the description of the run that left ``journal``, if it also left finished pixels."""
    run = journal.run()
    if run is None or not part_path(path).exists():
        return None
    return run if any(isinstance(record, Box) for record, _ in journal.read()) else None


def unfinished_run(path: Path, held: Journal | None) -> Mapping[str, Any] | None:
    """Return the description of a run that left something to resume: finished pixels, or earlier findings.

    ``held`` is the journal if this run has it already. Raises SinkError while another run writes the output.
    """
    if held is not None and held.held:
        return left_in_journal(path, held) or FoundFile(path).read()
    if not is_something_left(path):
        return None
    journal = Journal(path)
    try:
        return left_in_journal(path, journal) or FoundFile(path).read()
    finally:
        journal.leave()


def take_place(path: Path, *, resume: bool, overwrite: bool) -> Journal:
    """Lock the output for this run; remove what is there, unless it is resumed.

    Raises SinkError while another run writes it, OutputExistsError if an unfinished run is neither to be resumed nor to
    be overwritten.
    """
    journal = Journal(path)
    try:
        left = unfinished_run(path, journal)
        if left is not None and not resume and not overwrite:
            name = journal_path(path) if left_in_journal(path, journal) is not None else found_path(path)
            raise OutputExistsError(
                f"there is an unfinished run of {path} beside it ({name.name}). "
                "What to do: resume it with --resume, or start again with --overwrite"
            )
        if left is None or not resume:
            _remove_left(path, journal)
    except BaseException:
        journal.leave()
        raise
    return journal


def _remove_left(path: Path, journal: Journal) -> None:
    journal.clear()
    FoundFile(path).remove()
    part = part_path(path)
    shutil.rmtree(part, ignore_errors=True)
    with suppress(OSError):
        part.unlink(missing_ok=True)
