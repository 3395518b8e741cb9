"""Describe a file whose source exposes only the Source protocol, by opening what may exist.

``open_source`` refuses numbers that do not exist with OptionError, so the last accepted number is the last one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from exactile.errors import ChannelError, OptionError, SourceError
from exactile.sources.chunks.grid import HasGrid
from exactile.sources.description import (
    MOST_LISTED,
    LevelDescription,
    Listing,
    SeriesDescription,
    downsample,
    is_reduction,
)
from exactile.sources.open import open_source
from exactile.sources.pixel_size import PixelSize
from exactile.sources.protocol import Source
from exactile.sources.sample_types import stored_type

KNOWN = {"czi": ("CZI (Zeiss)", "pylibCZIrw"), "dicom": ("DICOM whole slide", "wsidicom")}
"""The format of a kind of source, and the package that reads it."""

MOST_LEVELS = 32
MOST_CHANNELS = 1 << 16
MOST_PLANES = 1 << 20


def probe(image: str | os.PathLike[str], kind: str) -> Listing:
    """Return series, levels, planes and channels, none of which is read; ``kind`` is the name of the source.

    Raises SourceError when not even one channel of the first image can be opened.
    """
    count = _count(lambda number: _is_there(image, series=number), MOST_LISTED)
    series = tuple(_series(image, number) for number in range(count))
    name, reader = KNOWN.get(kind, (kind.upper(), ""))
    return Listing(kind=name, reader=reader, reader_version=_version(reader), series=series, series_count=count)


def _version(reader: str) -> str | None:
    try:
        return version(reader) if reader else None
    except PackageNotFoundError:
        return None


def _series(image: str | os.PathLike[str], number: int) -> SeriesDescription:
    stored, delivered, first = _looked_at(image, None, series=number)
    levels = [first]
    while len(levels) < MOST_LEVELS and _is_there(image, series=number, level=len(levels)):
        levels.append(_looked_at(image, first, series=number, level=len(levels))[2])
    return SeriesDescription(
        series=number,
        name=None,
        axes="YXC",
        shape=first.shape,
        stored_dtype=stored,
        dtype=delivered,
        channels=first.shape[2],
        channel_names=(),
        z=_count(lambda at: _is_there(image, series=number, z=at), MOST_PLANES),
        t=_count(lambda at: _is_there(image, series=number, t=at), MOST_PLANES),
        levels=tuple(levels),
    )


def _looked_at(
    image: str | os.PathLike[str], full: LevelDescription | None, **choice: int
) -> tuple[str, str, LevelDescription]:
    """Return stored and delivered type, and the level."""
    source = _opened(image, **choice)
    try:
        channels = source.channels
        if channels == 1:  # perhaps because channels of different types cannot be opened together
            channels = _count(lambda at: _is_there(image, **choice, channels=(at,)), MOST_CHANNELS)
        level = _level(source, channels, choice.get("level", 0), full)
        return stored_type(source).newbyteorder("=").name, source.dtype.name, level
    finally:
        source.close()


def _level(source: Source, channels: int, number: int, full: LevelDescription | None) -> LevelDescription:
    size = source.height, source.width
    whole = size if full is None else (full.height, full.width)
    pixel_size: PixelSize | None = source.pixel_size_um
    grid = source.grid if isinstance(source, HasGrid) else None
    return LevelDescription(
        level=number,
        height=size[0],
        width=size[1],
        shape=(*size, channels),
        pixel_size_um=pixel_size,
        downsample=downsample(whole, size),
        reduction=is_reduction(whole, size),
        chunk_kind=None if grid is None else "blocks",
        chunk=None if grid is None else (grid.chunk_rows, grid.chunk_columns),
        chunks=None if grid is None else (grid.rows, grid.columns),
    )


def _opened(image: str | os.PathLike[str], **choice: Any) -> Source:
    """Open a plane of the stack, if it is one; one channel if all together cannot be opened."""
    wanted = {"z": 0, "t": 0, "workers": 1, **choice}
    try:
        return open_source(image, **wanted)
    except SourceError:
        if "channels" in choice:
            raise
    return open_source(image, **wanted, channels=(0,))


def _is_there(image: str | os.PathLike[str], **choice: Any) -> bool:
    try:
        _opened(image, **choice).close()
    except (OptionError, ChannelError):
        return False
    except SourceError:
        return any(choice.values())  # it exists, but is not read; for the first image the reason is reported
    return True


def _count(is_there: Callable[[int], bool], most: int) -> int:
    """Return how many numbers from 0 on exist, at most ``most``, with about twice log2 of it attempts."""
    there, step = 0, 1
    while there + step < most and is_there(there + step):
        there, step = there + step, 2 * step
    while step > 1:
        step //= 2
        if there + step < most and is_there(there + step):
            there += step
    return there + 1
