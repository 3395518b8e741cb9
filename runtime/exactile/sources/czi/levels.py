"""The reduced levels of a CZI file whose stored pixels can be read exactly.

The library finds pixels of a reduced level by scaling with rounded numbers, and puts some a pixel beside their place,
depending on the region. A sub-block that is read alone, as a whole, comes as stored; so a level is offered if all its
sub-blocks can be read so, and if they cover what the full resolution covers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from exactile.errors import SourceError
from exactile.sources.czi.directory import Column, CziDirectory
from exactile.sources.czi.places import Places, TileGrid

_MOST_HALVINGS = 20
_ZOOM_SLACK = 1.06
"""The library accepts sub-blocks of a zoom from 1 / 1.05 of the requested one, below 1.9 times their least."""

_NEXT_ZOOM = 1.91

_FLOAT32_WHOLE = 1 << 24
"""The library multiplies sides with the zoom in float32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """The full resolution: its first pixel in the file's coordinates, and its size."""

    y: int
    x: int
    height: int
    width: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CziLevel:
    """A level ``factor`` times smaller than the full resolution, of ``height`` x ``width`` pixels."""

    factor: int
    height: int
    width: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundLevels:
    """``taken`` by level, the full resolution first, and the factors of levels that are stored and not taken."""

    taken: tuple[CziLevel, ...]
    passed_over: tuple[int, ...]


def full_rows(directory: CziDirectory, rows: Column, name: str) -> Column:
    """Return those of ``rows`` (numbers of sub-blocks) that are of full resolution.

    Raises SourceError for sub-blocks that the library would also treat as such.
    """
    zoom = _zoom(directory, rows)
    full = directory.full[rows]
    odd = rows[~full & (zoom * _ZOOM_SLACK > 1)]
    if len(odd):
        one = int(odd[0])
        raise SourceError(
            f"{name}: a sub-block of {directory.stored_height[one]} x {directory.stored_width[one]} pixels says that"
            f" it covers {directory.height[one]} x {directory.width[one]}, which is neither the full resolution nor a "
            "reduced one; the file is damaged"
        )
    return rows[full]


def level_rows(directory: CziDirectory, rows: Column, factor: int) -> Column:
    """Return those of ``rows`` that are exactly ``factor`` times reduced."""
    exact = directory.width[rows] == directory.stored_width[rows] * factor
    exact &= directory.height[rows] == directory.stored_height[rows] * factor
    return np.asarray(rows[exact])


def level_places(directory: CziDirectory, rows: Column, factor: int, frame: Frame) -> Places:
    """Return where ``rows`` lie, in pixels of their level."""
    return Places(
        y=(directory.y[rows] - frame.y) // factor,
        x=(directory.x[rows] - frame.x) // factor,
        height=directory.stored_height[rows],
        width=directory.stored_width[rows],
    )


def find_levels(directory: CziDirectory, planes: Sequence[Column], frame: Frame) -> FoundLevels:
    """Return the levels that every plane (numbers of its sub-blocks) has."""
    taken, passed = [CziLevel(factor=1, height=frame.height, width=frame.width)], []
    for halvings in range(1, _MOST_HALVINGS):
        factor = 1 << halvings
        if not any(len(_near(directory, rows, factor)) for rows in planes):
            continue
        level = _level(directory, planes, factor, frame)
        if level is not None and all(_covers(directory, rows, level, frame) for rows in planes):
            taken.append(level)
        else:
            passed.append(factor)
    return FoundLevels(taken=tuple(taken), passed_over=tuple(passed))


def _zoom(directory: CziDirectory, rows: Column) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Return the zoom as the library computes it: along the longer side."""
    wide = directory.stored_width[rows] > directory.stored_height[rows]
    stored = np.where(wide, directory.stored_width[rows], directory.stored_height[rows])
    return np.asarray(stored / np.where(wide, directory.width[rows], directory.height[rows]))


def _near(directory: CziDirectory, rows: Column, factor: int) -> Column:
    """Return those of ``rows`` that the library may use when this level is requested."""
    zoom = _zoom(directory, rows) * factor
    return rows[(zoom * _ZOOM_SLACK > 1) & (zoom < _NEXT_ZOOM)]


def _level(directory: CziDirectory, planes: Sequence[Column], factor: int, frame: Frame) -> CziLevel | None:
    """Return the level, if sub-blocks hold whole pixels of it up to its end."""
    bottom, right = -(-frame.height // factor), -(-frame.width // factor)
    for rows in planes:
        near = _near(directory, rows, factor)
        if not len(near) or not _is_exact(directory, near, factor, frame):
            return None
        tiles = level_places(directory, near, factor, frame)
        # Writers round the last pixel up or down.
        bottom = min(bottom, int((tiles.y + tiles.height).max()))
        right = min(right, int((tiles.x + tiles.width).max()))
    if bottom < max(1, frame.height // factor) or right < max(1, frame.width // factor):
        return None
    return CziLevel(factor=factor, height=bottom, width=right)


def _is_exact(directory: CziDirectory, near: Column, factor: int, frame: Frame) -> bool:
    """Return whether all of ``near`` are of the level, and begin at one of its pixels."""
    if len(level_rows(directory, near, factor)) < len(near):
        return False
    if max(directory.width[near].max(), directory.height[near].max()) >= _FLOAT32_WHOLE:
        return False
    return not (((directory.y[near] - frame.y) % factor).any() or ((directory.x[near] - frame.x) % factor).any())


def _covers(directory: CziDirectory, rows: Column, level: CziLevel, frame: Frame) -> bool:
    """Return whether the level's sub-blocks do not overlap, and cover what those of the full resolution cover."""
    tiles = level_places(directory, level_rows(directory, rows, level.factor), level.factor, frame)
    grid = TileGrid.of(tiles)
    full = level_places(directory, rows[directory.full[rows]], 1, frame)
    return grid is not None and grid.covers(tiles, full.reduced(level.factor, level.height, level.width))
