"""Levels of half the size each, made while the tiles of the full resolution come."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.geometry import Box, Span
from exactile.sinks.tile_assembly import TileAssembly
from exactile.sinks.tile_grid import TileGrid

Reduce = Callable[[NDArray[Any]], NDArray[Any]]
"""From (C, H, W) to (C, ceil(H / 2), ceil(W / 2)) of the same dtype."""


def level_grids(height: int, width: int, tile_px: int, *, pyramid: bool) -> tuple[TileGrid, ...]:
    """The full resolution and, for a pyramid, halves of it down to one tile; sizes are rounded up."""
    grids = [TileGrid(height=height, width=width, tile_px=tile_px)]
    while pyramid and grids[-1].count > 1:
        height, width = -(-height // 2), -(-width // 2)
        grids.append(TileGrid(height=height, width=width, tile_px=tile_px))
    return tuple(grids)


def nearest(planes: NDArray[Any]) -> NDArray[Any]:
    """Every second pixel: a label stays a label."""
    return planes[:, ::2, ::2]


def mean(planes: NDArray[Any]) -> NDArray[Any]:
    """The mean of each 2 x 2 pixels, of those there are at the edge."""
    _, height, width = planes.shape
    padded = np.pad(planes, ((0, 0), (0, height % 2), (0, width % 2)), mode="edge").astype(np.float64)
    sums = padded[:, ::2, ::2] + padded[:, ::2, 1::2] + padded[:, 1::2, ::2] + padded[:, 1::2, 1::2]
    result: NDArray[Any] = np.rint(sums / 4) if planes.dtype.kind in "iu" else sums / 4
    return result.astype(planes.dtype)


class Pyramid:
    """Holds the raw pixels of tiles that are not complete, of every level."""

    def __init__(self, grids: Sequence[TileGrid], *, planes: int, dtype: np.dtype[Any], reduce: Reduce) -> None:
        self._grids = grids
        self._levels = [TileAssembly(grid, planes=planes, dtype=dtype) for grid in grids]
        self._reduce = reduce

    def put(self, box: Box, planes: NDArray[Any], level: int = 0) -> Iterator[tuple[int, int, NDArray[Any]]]:
        """Copy ``planes``, (C, H, W), the pixels of ``box`` of ``level``; yield complete tiles of all levels.

        Each as level, number and (C, tile, tile). Lazy: the copy is done when all is yielded.
        """
        for tile, pixels in self._levels[level].put(box, planes):
            yield level, tile, pixels
            yield from self.put_reduced(level, tile, pixels)

    def put_reduced(self, level: int, tile: int, pixels: NDArray[Any]) -> Iterator[tuple[int, int, NDArray[Any]]]:
        """Hand a complete tile of ``level`` to the level above; yields as ``put``."""
        if level + 1 < len(self._levels):
            box = self._grids[level].tile_box(tile)
            inside = pixels[:, : box.y.length, : box.x.length]
            yield from self.put(half(box), self._reduce(inside), level + 1)

    def clear(self) -> None:
        for level in self._levels:
            level.clear()


def half(box: Box) -> Box:
    """The box on the next level; it begins at even pixels."""
    return Box(*(Span(span.start // 2, -(-span.stop // 2)) for span in (box.y, box.x)))


def parent(grids: Sequence[TileGrid], level: int, tile: int) -> int:
    """The tile of the next level that ``tile`` of ``level`` goes into."""
    row, column = divmod(tile, grids[level].columns)
    return row // 2 * grids[level + 1].columns + column // 2
