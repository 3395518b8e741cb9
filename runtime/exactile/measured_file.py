"""Files of measurements of a bundle's model, kept in its folder: JSON, decoded strictly, not part of its contract."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta, Struct

from exactile.errors import BundleError
from exactile.sinks.files.whole_file import replace_file

LONGEST_DETAIL = 300


class Part(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the file; unknown fields are an error."""


class MeasuredFile(Part, frozen=True, kw_only=True):
    """The members of all such files: the program that wrote it, and the SHA-256 of the graphs that were measured."""

    made_by: str
    belongs_to: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]


Measured = TypeVar("Measured", bound=MeasuredFile)


def write_measured(path: Path, file: MeasuredFile) -> None:
    """Write the file, complete or not at all. Raises SinkError."""
    replace_file(path, msgspec.json.format(msgspec.json.encode(file), indent=1) + b"\n")


def read_measured(
    path: Path, kind: type[Measured], belongs_to: Callable[[], str], *, what: str, most_bytes: int, remedy: str
) -> Measured | None:
    """Return the file at ``path`` for the model whose graphs have the given SHA-256; None if there is none.

    Raises BundleError, with the ``remedy``, if it is damaged, or belongs to another model.
    """
    try:
        if path.stat().st_size > most_bytes:
            raise BundleError(f"{path} has more than {most_bytes} bytes: it is no {what}; {remedy}")
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error
    try:
        file = msgspec.json.decode(content, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        detail = "".join(letter if letter.isprintable() else "?" for letter in str(error)[:LONGEST_DETAIL])
        raise BundleError(f"{path} is damaged, or of another version ({detail}); {remedy}") from error
    if file.belongs_to != belongs_to():
        raise BundleError(f"{path} was measured with another model than this bundle's; {remedy}")
    return file
