"""Levels of half the size each, computed while the tiles of the full resolution arrive."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.geometry import Box
from exactile.sinks.tiles.assembly import Placed, TileArrays, TileAssembly
from exactile.sinks.tiles.grid import TileGrid

Reduce = Callable[[NDArray[Any]], NDArray[Any]]
"""From (H, W) to (ceil(H / 2), ceil(W / 2)) of the same dtype."""

Begin = Callable[[], object]


def halved(height: int, width: int, tile_px: int) -> Iterator[TileGrid]:
    """Yield the full resolution, and halves of it without end; sizes are rounded up."""
    while True:
        yield TileGrid(height=height, width=width, tile_px=tile_px)
        height, width = -(-height // 2), -(-width // 2)


def level_grids(height: int, width: int, tile_px: int, *, pyramid: bool) -> tuple[TileGrid, ...]:
    """Return the full resolution and, for a pyramid, halves of it down to one tile."""
    grids: list[TileGrid] = []
    for grid in halved(height, width, tile_px):
        grids.append(grid)
        if not pyramid or grid.count == 1:
            break
    return tuple(grids)


def nearest(plane: NDArray[Any]) -> NDArray[Any]:
    """Return every second pixel: a label stays a label."""
    return plane[::2, ::2]


def mean(plane: NDArray[Any]) -> NDArray[Any]:
    """Return the mean of each 2 x 2 pixels, of the existing ones at the edge."""
    height, width = plane.shape
    padded = np.pad(plane, ((0, height % 2), (0, width % 2)), mode="edge").astype(np.float64)
    sums = padded[::2, ::2] + padded[::2, 1::2] + padded[1::2, ::2] + padded[1::2, 1::2]
    result: NDArray[Any] = np.rint(sums / 4) if plane.dtype.kind in "iu" else sums / 4
    return result.astype(plane.dtype)


class LevelTile:
    """A tile of one level and the one of the next level, ``above``, that it is reduced into.

    ``pixels`` are (C, tile, tile). A tile of an upper level is complete once all tiles below are known, and its planes
    are ready once their pixels were reduced into it, which several threads may do.
    """

    def __init__(self, grid: TileGrid, level: int, tile: int, pixels: NDArray[Any], *, below: int = 0) -> None:
        self.level, self.tile, self.pixels = level, tile, pixels
        self._row, self._column = divmod(tile, grid.columns)
        self._shape = grid.tile_shape(self._row, self._column)
        self.above: LevelTile | None = None
        self.unknown = below
        """Number of tiles below that are not complete yet."""
        self._lock = threading.Lock()
        # Besides the tiles below, the caller that sets how to begin is waited for.
        self._awaited = [below + 1] * len(pixels)
        self._begin: list[Begin | None] = [None] * len(pixels)

    def when_ready(self, plane: int, begin: Begin) -> None:
        """Call ``begin`` once all of ``plane`` is there, in the thread that adds the last of it."""
        self._begin[plane] = begin
        self._came(plane)

    def reduce(self, plane: int, reduce: Reduce) -> None:
        """Reduce ``plane`` into the tile above, if there is one."""
        if self.above is None:
            return
        height, width = self._shape
        reduced = reduce(self.pixels[plane, :height, :width])
        half_px = self.pixels.shape[2] // 2
        y, x = self._row % 2 * half_px, self._column % 2 * half_px
        self.above.pixels[plane, y : y + reduced.shape[0], x : x + reduced.shape[1]] = reduced
        self.above._came(plane)  # noqa: SLF001 - its own kind

    def _came(self, plane: int) -> None:
        with self._lock:
            self._awaited[plane] -= 1
            if self._awaited[plane]:
                return
            # The work that begins holds this tile; without it here, both are freed when it has ended.
            begin, self._begin[plane] = self._begin[plane], None
        if begin is not None:
            begin()


class Pyramid:
    """Holds the raw pixels of tiles that are not complete, of every level. Used by one thread."""

    def __init__(self, grids: Sequence[TileGrid], *, planes: int, dtype: np.dtype[Any]) -> None:
        self._grids = grids
        self._arrays = TileArrays(planes, grids[0].tile_px, dtype)
        self._full = TileAssembly(grids[0], self._arrays)
        self._upper: list[dict[int, LevelTile]] = [{} for _ in grids]

    def stored(self, tile: LevelTile) -> None:
        """Release the pixels of ``tile`` for reuse: all its planes are stored."""
        self._arrays.give(tile.pixels)

    def put(self, box: Box, planes: NDArray[Any]) -> Iterator[Placed]:
        """Place ``planes`` as ``TileAssembly.put``, at full resolution. A complete tile goes to ``completed``."""
        return self._full.put(box, planes)

    def completed(self, level: int, tile: int, pixels: NDArray[Any]) -> Iterator[LevelTile]:
        """Yield the complete ``tile`` of ``level``, (C, tile, tile), and those above that it completes, upwards."""
        found: LevelTile | None = LevelTile(self._grids[level], level, tile, pixels)
        while found is not None:
            above = found.above = self._tile_above(found.level, found.tile)
            yield found
            if above is None:
                return
            above.unknown -= 1
            found = None if above.unknown else self._upper[above.level].pop(above.tile)

    def _tile_above(self, level: int, tile: int) -> LevelTile | None:
        if level + 1 == len(self._grids):
            return None
        upper, number, grid = self._upper[level + 1], parent(self._grids, level, tile), self._grids[level + 1]
        found = upper.get(number)
        if found is None:
            pixels = self._arrays.take(grid, *divmod(number, grid.columns))
            below = children(self._grids, level + 1, number)
            found = upper[number] = LevelTile(grid, level + 1, number, pixels, below=below)
        return found


def parent(grids: Sequence[TileGrid], level: int, tile: int) -> int:
    """Return the tile of the next level that ``tile`` of ``level`` goes into."""
    row, column = divmod(tile, grids[level].columns)
    return row // 2 * grids[level + 1].columns + column // 2


def children(grids: Sequence[TileGrid], level: int, tile: int) -> int:
    """Return how many tiles of the previous level go into ``tile`` of ``level``: 4, fewer at the edges."""
    row, column = divmod(tile, grids[level].columns)
    below = grids[level - 1]
    return min(2, below.rows - 2 * row) * min(2, below.columns - 2 * column)
