"""The file of a tuning in a bundle: JSON, decoded strictly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

import exactile
from exactile.errors import BundleError
from exactile.sinks.whole_file import replace_file
from exactile.tuning.tuning import TunedShape, Tuning

TUNING_NAME = "tuning.json"
FORMAT: Literal["exactile.tuning"] = "exactile.tuning"
VERSION: Literal[1] = 1
MOST_BYTES = 1 << 20
LONGEST_DETAIL = 300

Size = Annotated[int, Meta(ge=1, le=1 << 31)]
Count = Annotated[int, Meta(ge=1, le=1 << 16)]


class _Part(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Unknown fields are an error."""


class ShapePart(_Part, frozen=True, kw_only=True):
    """See ``TunedShape``."""

    plan: Literal["tile", "strip"]
    shape: tuple[Size, Size]
    lanes: Count
    activation_bytes: Annotated[int, Meta(ge=1, le=1 << 60)]
    seconds_per_pixel: Annotated[float, Meta(gt=0, le=1)]


class TuningFile(_Part, frozen=True, kw_only=True):
    """All of the file. See ``Tuning``."""

    format: Literal["exactile.tuning"]
    version: Literal[1]
    made_by: str
    belongs_to: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
    machine: str
    threads: Count
    shapes: Annotated[tuple[ShapePart, ...], Meta(min_length=1)]


def tuning_file(tuning: Tuning) -> TuningFile:
    """``tuning`` as it is written."""
    return TuningFile(
        format=FORMAT,
        version=VERSION,
        made_by=f"exactile {exactile.__version__}",
        belongs_to=tuning.belongs_to,
        machine=tuning.machine,
        threads=tuning.threads,
        shapes=tuple(
            ShapePart(
                plan=one.kind,
                shape=one.shape,
                lanes=one.lanes,
                activation_bytes=one.activation_bytes,
                seconds_per_pixel=one.seconds,
            )
            for one in tuning.shapes
        ),
    )


def write_tuning(folder: Path, tuning: Tuning) -> Path:
    """Write it into the bundle ``folder``, complete or not at all. Raises SinkError."""
    path = folder / TUNING_NAME
    replace_file(path, msgspec.json.format(msgspec.json.encode(tuning_file(tuning)), indent=1) + b"\n")
    return path


def read_tuning(folder: Path, belongs_to: Callable[[], str]) -> Tuning | None:
    """That of the bundle ``folder``, whose graphs have the SHA-256 that is asked for; None where none was measured.

    Raises BundleError where it is damaged, or another model's.
    """
    path = folder / TUNING_NAME
    remedy = "delete it, or measure it again with exactile tune BUNDLE"
    try:
        if path.stat().st_size > MOST_BYTES:
            raise BundleError(f"{path} has more than {MOST_BYTES} bytes: it is no tuning; {remedy}")
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error
    try:
        file = msgspec.json.decode(content, type=TuningFile)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        detail = "".join(letter if letter.isprintable() else "?" for letter in str(error)[:LONGEST_DETAIL])
        raise BundleError(f"{path} is damaged, or of another version ({detail}); {remedy}") from error
    if file.belongs_to != belongs_to():
        raise BundleError(f"{path} was measured with another model than this bundle's; {remedy}")
    return Tuning(
        belongs_to=file.belongs_to,
        machine=file.machine,
        threads=file.threads,
        shapes=tuple(
            TunedShape(
                kind=one.plan,
                shape=one.shape,
                lanes=one.lanes,
                activation_bytes=one.activation_bytes,
                seconds=one.seconds_per_pixel,
            )
            for one in file.shapes
        ),
    )
