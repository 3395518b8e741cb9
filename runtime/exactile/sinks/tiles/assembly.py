"""Assemble file tiles from the boxes that arrive."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from exactile.geometry import Box, Span
from exactile.sinks.protocol import WritePlan
from exactile.sinks.tiles.grid import TileGrid


class Placed(NamedTuple):
    """The part of a box in one tile: ``part``, of the plane, at ``inside`` of ``pixels``, (C, tile, tile).

    ``complete``: every pixel of the tile has come. Pixels that have come do not change any more.
    """

    tile: int
    part: Box
    inside: tuple[slice, slice]
    pixels: NDArray[Any]
    complete: bool


class TileAssembly:
    """Holds the raw pixels of file tiles that straddle boxes until their last pixel arrives."""

    def __init__(self, grid: TileGrid, arrays: TileArrays) -> None:
        self._grid, self._columns = grid, grid.columns
        self._arrays = arrays
        self._open: dict[int, tuple[NDArray[Any], int]] = {}

    def put(self, box: Box, planes: NDArray[Any]) -> Iterator[Placed]:
        """Copy ``planes``, (C, H, W), the pixels of ``box``; yield the part in each tile that it touches.

        Beyond the edges of the result a tile is filled with zeros. Lazy: the copy is complete when all is yielded.
        """
        y0, x0, size = box.y.start, box.x.start, self._grid.tile_px
        for row, y in _cut(box.y, size):
            rows, top = slice(y.start - y0, y.stop - y0), row * size
            for column, x in _cut(box.x, size):
                inside = slice(y.start - top, y.stop - top), slice(x.start - column * size, x.stop - column * size)
                index = row * self._columns + column
                known = index in self._open
                pixels, missing_px = self._open.pop(index) if known else self._new(row, column)
                pixels[:, inside[0], inside[1]] = planes[:, rows, x.start - x0 : x.stop - x0]
                missing_px -= y.length * x.length
                if missing_px:
                    self._open[index] = pixels, missing_px
                yield Placed(index, Box(y, x), inside, pixels, not missing_px)

    def _new(self, row: int, column: int) -> tuple[NDArray[Any], int]:
        return self._arrays.take(self._grid, row, column), prod(self._grid.tile_shape(row, column))


class TileArrays:
    """Reused arrays for tiles, (C, tile, tile): fresh memory costs as much as what is done with it.

    Used by one thread. It never holds more arrays than were in use at once.
    """

    def __init__(self, planes: int, tile_px: int, dtype: np.dtype[Any]) -> None:
        self._shape, self._dtype = (planes, tile_px, tile_px), dtype
        self._free: list[NDArray[Any]] = []

    def take(self, grid: TileGrid, row: int, column: int) -> NDArray[Any]:
        """Return an array for a tile of ``grid``; zero beyond the plane, undefined elsewhere."""
        pixels = self._free.pop() if self._free else np.empty(self._shape, self._dtype)
        if grid.tile_shape(row, column) != self._shape[1:]:
            pixels.fill(0)
        return pixels

    def give(self, pixels: NDArray[Any]) -> None:
        """Return ``pixels``, which are no longer read or written."""
        self._free.append(pixels)


def _cut(span: Span, size: int) -> list[tuple[int, Span]]:
    """Cut ``span`` at the edges of tiles: the row or column of each tile, and the part of the span in it."""
    return [
        (index, Span(max(span.start, index * size), min(span.stop, (index + 1) * size)))
        for index in range(span.start // size, -(-span.stop // size))
    ]


def most_open_tiles(plan: WritePlan, grid: TileGrid) -> int:
    """Return the most tiles that are in assembly at once when the boxes of ``plan`` come row by row."""
    first_row, last_row = _first_and_last(np.array([span.stop for span in plan.rows]), grid.height, grid.tile_px)
    first_column, last_column = _first_and_last(
        np.array([span.stop for span in plan.columns]), grid.width, grid.tile_px
    )
    boxes_per_row = len(plan.columns)
    opened_at = (first_row[:, None] * boxes_per_row + first_column).ravel()
    closed_at = (last_row[:, None] * boxes_per_row + last_column).ravel()
    straddling = closed_at > opened_at
    # By the boxes at which a tile is opened or closed: there may be many more boxes than tiles.
    boxes = np.concatenate([opened_at[straddling], closed_at[straddling] + 1])
    changes = np.repeat([1, -1], len(boxes) // 2)
    order = np.argsort(boxes)
    is_last_of_box = np.ones(len(boxes), bool)
    is_last_of_box[:-1] = np.diff(boxes[order]) > 0
    open_tiles = np.cumsum(changes[order])[is_last_of_box]
    within_one_box = 1  # a tile that one box fills is in assembly alone
    return int(open_tiles.max(initial=0)) + within_one_box


def _first_and_last(stops: NDArray[np.int_], size: int, tile_px: int) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
    """Return for every tile on one axis the numbers of the spans (given by their ends) with its first
    and last pixel.
    """
    starts = np.arange(0, size, tile_px)
    ends = np.minimum(starts + tile_px, size)
    return np.searchsorted(stops, starts, side="right"), np.searchsorted(stops, ends - 1, side="right")
