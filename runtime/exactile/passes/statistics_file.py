"""The file of fixed statistics: JSON, decoded strictly; every float32 is restored exactly."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta, Struct

import exactile
from exactile.errors import OptionError, OutputExistsError, SinkError
from exactile.passes.fixed import FixedStatistics
from exactile.sinks.files.whole_file import replace_file

FORMAT: Literal["exactile.statistics"] = "exactile.statistics"
VERSION: Literal[1] = 1
SUFFIX = ".json"
MOST_BYTES = 256 << 20
"""A larger file is not one of statistics."""

Size = Annotated[int, Meta(ge=1, le=1 << 31)]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]


class _Part(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the file; unknown fields are an error."""


class ValuesPart(_Part, frozen=True, kw_only=True):
    """One graph input: its values in C order."""

    input: Annotated[str, Meta(min_length=1, max_length=256)]
    shape: Annotated[tuple[Size, ...], Meta(max_length=8)]
    values: tuple[float, ...]


class StatisticsFile(_Part, frozen=True, kw_only=True):
    """All of the file. ``sha256`` is that of the values; see ``FixedStatistics.identity``."""

    format: Literal["exactile.statistics"]
    version: Literal[1]
    made_by: str
    model: str
    belongs_to: Sha256
    images: Annotated[tuple[str, ...], Meta(min_length=1)]
    pixels: Annotated[int, Meta(ge=1, le=1 << 60)]
    sha256: Sha256
    statistics: Annotated[tuple[ValuesPart, ...], Meta(min_length=1)]


class Header(Struct, frozen=True, kw_only=True):
    """The members that are read first."""

    format: str = ""
    version: int = 0


def check_target(path: Path, *, overwrite: bool) -> None:
    """Raise OptionError, OutputExistsError, SinkError if ``path`` may not be written."""
    if path.suffix.lower() != SUFFIX:
        raise OptionError(f"statistics are written to a {SUFFIX} file, got {path}")
    if path.is_dir():
        raise SinkError(f"cannot write {path}: it is a folder; give the name of a file in it")
    if not path.parent.is_dir():
        raise SinkError(f"cannot write {path}: the folder {path.parent} does not exist; make it, or write elsewhere")
    if path.exists() and not overwrite:
        raise OutputExistsError(f"{path} exists already. What to do: pass --overwrite, or write elsewhere")


def write(statistics: FixedStatistics, path: Path, *, overwrite: bool) -> None:
    """See ``FixedStatistics.write``."""
    check_target(path, overwrite=overwrite)
    replace_file(path, _encode(statistics))


def _encode(statistics: FixedStatistics) -> bytes:
    file = StatisticsFile(
        format=FORMAT,
        version=VERSION,
        made_by=f"exactile {exactile.__version__}",
        model=statistics.model,
        belongs_to=statistics.belongs_to,
        images=statistics.images,
        pixels=statistics.pixels,
        sha256=statistics.identity,
        statistics=tuple(
            ValuesPart(input=name, shape=array.shape, values=tuple(array.ravel().tolist()))
            for name, array in statistics.values.items()
        ),
    )
    return msgspec.json.format(msgspec.json.encode(file), indent=1) + b"\n"


def decode(path: Path) -> FixedStatistics:
    """See ``read_statistics``."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise OptionError(f"{path} has more than {MOST_BYTES} bytes: it is not a file of statistics")
        content = path.read_bytes()
    except OSError as error:
        raise OptionError(f"the statistics {path} cannot be read: {error.strerror}") from error
    file = _parsed(path, content)
    try:
        found = _statistics(file, path.name)
    except ValueError as error:
        raise _damaged(path, str(error)) from error
    if found.identity != file.sha256:
        raise _damaged(path, "its values are not those that were written")
    return found


def _parsed(path: Path, content: bytes) -> StatisticsFile:
    try:
        header = msgspec.json.decode(content, type=Header)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _no_statistics(path) from error
    if header.format != FORMAT:
        raise _no_statistics(path)
    if header.version > VERSION:
        raise OptionError(
            f"{path} was written by a newer exactile (version {header.version}, this one reads {VERSION}); update "
            "exactile, or measure again"
        )
    try:
        return msgspec.json.decode(content, type=StatisticsFile, strict=True)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _damaged(path, str(error)) from error


def _statistics(file: StatisticsFile, name: str) -> FixedStatistics:
    values = {}
    for part in file.statistics:
        if prod(part.shape) != len(part.values):
            raise ValueError(f"{part.input} has {len(part.values)} values for the shape {list(part.shape)}")
        if part.input in values:
            raise ValueError(f"{part.input} stands there twice")
        array = np.array(part.values, np.float64)
        if (np.abs(array) > np.finfo(np.float32).max).any():
            raise ValueError(f"{part.input} is beyond the range of float32")
        values[part.input] = array.astype(np.float32).reshape(part.shape)
    return FixedStatistics(
        values=values,
        model=file.model,
        belongs_to=file.belongs_to,
        images=file.images,
        pixels=file.pixels,
        file=name,
    )


def _no_statistics(path: Path) -> OptionError:
    return OptionError(f"{path} is no file of statistics; exactile measure writes such")


def _damaged(path: Path, why: str) -> OptionError:
    return OptionError(f"the statistics {path} are damaged: {why}; measure them again")
