"""Places of sub-blocks: whether they form a grid, and what they cover."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.geometry import Box, Span
from exactile.sources.czi.directory import Column

MOST_COUNTED = 20_000
"""The area of more overlapping sub-blocks is not counted: it would take seconds."""

_MOST_CELLS = 1 << 24
_MOST_STEPS = 1 << 14


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Rectangles, in pixels from the image's first; a column each."""

    y: Column
    x: Column
    height: Column
    width: Column

    def __len__(self) -> int:
        return len(self.y)

    def take(self, rows: NDArray[Any]) -> Places:
        """Return some of them, by number or mask."""
        return Places(y=self.y[rows], x=self.x[rows], height=self.height[rows], width=self.width[rows])

    def touching(self, box: Box) -> NDArray[np.int64]:
        """Return the numbers of those that share a pixel with ``box``."""
        rows = (self.y < box.y.stop) & (self.y + self.height > box.y.start)
        columns = (self.x < box.x.stop) & (self.x + self.width > box.x.start)
        return np.nonzero(rows & columns)[0]

    def box(self, number: int) -> Box:
        y, x = int(self.y[number]), int(self.x[number])
        return Box(Span(y, y + int(self.height[number])), Span(x, x + int(self.width[number])))

    def unique(self) -> Places:
        """Return each once."""
        found = np.unique(np.stack([self.y, self.x, self.height, self.width], axis=1), axis=0)
        return Places(y=found[:, 0], x=found[:, 1], height=found[:, 2], width=found[:, 3])

    @property
    def area(self) -> int:
        """The sum of their areas."""
        return int((self.height * self.width).sum())

    def reduced(self, factor: int, height: int, width: int) -> Places:
        """Return the pixels of a level, ``factor`` times smaller and of ``height`` x ``width``, that touch them."""
        y, x = self.y // factor, self.x // factor
        bottom = np.minimum(-(-(self.y + self.height) // factor), height)
        right = np.minimum(-(-(self.x + self.width) // factor), width)
        return Places(y=y, x=x, height=bottom - y, width=right - x)


@dataclass(frozen=True, slots=True, kw_only=True)
class TileGrid:
    """Places that lie on a grid and do not overlap: cell (0, 0) begins at ``y``, ``x``; cells are ``rows`` x
    ``columns`` pixels.
    """

    y: int
    x: int
    rows: int
    columns: int

    @staticmethod
    def of(places: Places) -> TileGrid | None:
        """Return the grid of ``places``; None if they do not form one."""
        rows, columns = _pitch(places.y, places.height), _pitch(places.x, places.width)
        if rows is None or columns is None:
            return None
        if len(np.unique(np.stack([places.y, places.x], axis=1), axis=0)) < len(places):
            return None
        return TileGrid(y=int(places.y.min()), x=int(places.x.min()), rows=rows, columns=columns)

    def is_dense(self, places: Places) -> bool:
        """Return whether cells are not much larger than their content."""
        return bool(self.rows <= 2 * places.height.max() and self.columns <= 2 * places.width.max())

    def covers(self, tiles: Places, wanted: Places) -> bool:
        """Return whether ``tiles``, which lie on this grid, cover all of ``wanted``; also False if that takes long."""
        row, column = (tiles.y - self.y) // self.rows, (tiles.x - self.x) // self.columns
        shape = (int(row.max()) + 1, int(column.max()) + 1)
        steps = (int(wanted.height.max()) // self.rows + 2, int(wanted.width.max()) // self.columns + 2)
        if shape[0] * shape[1] > _MOST_CELLS or steps[0] * steps[1] > _MOST_STEPS:
            return False
        numbers = np.full(shape, -1, np.int64)
        numbers[row, column] = np.arange(len(tiles))
        covered = np.zeros(len(wanted), np.int64)
        for y, x in self._cells(wanted, steps):
            inside = (y >= 0) & (y < shape[0]) & (x >= 0) & (x < shape[1])
            found = np.where(inside, numbers[np.clip(y, 0, shape[0] - 1), np.clip(x, 0, shape[1] - 1)], -1)
            covered += np.where(found >= 0, _shared_area(tiles.take(found), wanted), 0)
        return bool((covered == wanted.height * wanted.width).all())

    def _cells(self, wanted: Places, steps: tuple[int, int]) -> Iterator[tuple[Column, Column]]:
        """Yield cells that each of ``wanted`` touches, and some that it does not, one of each at a time."""
        top, left = (wanted.y - self.y) // self.rows, (wanted.x - self.x) // self.columns
        for row in range(steps[0]):
            for column in range(steps[1]):
                yield top + row, left + column


def _pitch(starts: Column, sizes: Column) -> int | None:
    """Return the distance of the cells along one axis; None if places overlap or lie between cells."""
    unique = np.unique(starts)
    pitch = int(np.diff(unique).min()) if len(unique) > 1 else int(sizes.max())
    regular = not ((unique - unique[0]) % pitch).any() and sizes.max() <= pitch
    return pitch if regular else None


def _shared_area(one: Places, other: Places) -> Column:
    """Return the pixels that each of ``one`` shares with that of ``other`` of the same number."""
    rows = np.minimum(one.y + one.height, other.y + other.height) - np.maximum(one.y, other.y)
    columns = np.minimum(one.x + one.width, other.x + other.width) - np.maximum(one.x, other.x)
    return np.asarray(np.maximum(rows, 0) * np.maximum(columns, 0))


def covered_pixels(places: Places) -> int | None:
    """Return the number of pixels in at least one of ``places``; None if counting would take long."""
    places = places.unique()
    if TileGrid.of(places) is not None:
        return places.area
    if len(places) > MOST_COUNTED:
        return None
    places = places.take(np.argsort(places.y, kind="stable"))
    edges = np.unique(np.concatenate([places.y, places.y + places.height]))
    tallest = int(places.height.max())
    total = 0
    for top, bottom in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        first, last = np.searchsorted(places.y, (top - tallest + 1, top + 1))
        here = places.take(np.arange(first, last))
        total += (bottom - top) * _covered_length(here.take(here.y + here.height > top))
    return total


def _covered_length(places: Places) -> int:
    """Return the length of the union of their columns."""
    order = np.argsort(places.x, kind="stable")
    starts = places.x[order]
    stops = starts + places.width[order]
    if not len(starts):
        return 0
    reached = np.concatenate([starts[:1], np.maximum.accumulate(stops)[:-1]])
    return int(np.maximum(stops - np.maximum(starts, reached), 0).sum())
