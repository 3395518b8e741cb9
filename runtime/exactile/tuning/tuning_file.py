"""The file of a tuning in a bundle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

import exactile
from exactile.contract.tuning import PlanKind, TunedShape, Tuning
from exactile.measured_file import MeasuredFile, Part, read_measured, write_measured

TUNING_NAME = "tuning.json"
FORMAT: Literal["exactile.tuning"] = "exactile.tuning"
VERSION: Literal[1] = 1
MOST_BYTES = 1 << 20

Size = Annotated[int, Meta(ge=1, le=1 << 31)]
Count = Annotated[int, Meta(ge=1, le=1 << 16)]


class ShapePart(Part, frozen=True, kw_only=True):
    """See ``TunedShape``."""

    kind: PlanKind
    shape: tuple[Size, Size]
    lanes: Count
    activation_bytes: Annotated[int, Meta(ge=1, le=1 << 60)]
    seconds_per_pixel: Annotated[float, Meta(gt=0, le=1)]


class TuningFile(MeasuredFile, frozen=True, kw_only=True):
    """All of the file. See ``Tuning``."""

    format: Literal["exactile.tuning"]
    version: Literal[1]
    machine: str
    threads: Count
    shapes: Annotated[tuple[ShapePart, ...], Meta(min_length=1)]


def tuning_file(tuning: Tuning) -> TuningFile:
    """Return ``tuning`` as the file has it."""
    return TuningFile(
        format=FORMAT,
        version=VERSION,
        made_by=f"exactile {exactile.__version__}",
        belongs_to=tuning.belongs_to,
        machine=tuning.machine,
        threads=tuning.threads,
        shapes=tuple(ShapePart(**asdict(one)) for one in tuning.shapes),
    )


def write_tuning(folder: Path, tuning: Tuning) -> Path:
    """Write it into the bundle ``folder``, complete or not at all. Raises SinkError."""
    path = folder / TUNING_NAME
    write_measured(path, tuning_file(tuning))
    return path


def read_tuning(folder: Path, belongs_to: Callable[[], str]) -> Tuning | None:
    """Return the tuning of the bundle ``folder``, whose graphs have the given SHA-256; None if none was measured.

    Raises BundleError if it is damaged, or belongs to another model.
    """
    remedy = "delete it, or measure it again with exactile tune BUNDLE"
    file = read_measured(
        folder / TUNING_NAME, TuningFile, belongs_to, what="tuning", most_bytes=MOST_BYTES, remedy=remedy
    )
    if file is None:
        return None
    return Tuning(
        belongs_to=file.belongs_to,
        machine=file.machine,
        threads=file.threads,
        shapes=tuple(TunedShape(**msgspec.structs.asdict(one)) for one in file.shapes),
    )
