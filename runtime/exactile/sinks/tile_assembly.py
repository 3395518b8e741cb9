"""File tiles put together from the boxes that arrive."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.geometry import Box
from exactile.sinks.protocol import WritePlan
from exactile.sinks.tile_grid import TileGrid


class TileAssembly:
    """Holds the raw pixels of file tiles that straddle boxes until their last pixel arrives."""

    def __init__(self, grid: TileGrid, *, planes: int, dtype: np.dtype[Any]) -> None:
        self._grid = grid
        self._shape = (planes, grid.tile_px, grid.tile_px)
        self._dtype = dtype
        self._open: dict[int, tuple[NDArray[Any], int]] = {}

    def put(self, box: Box, planes: NDArray[Any]) -> Iterator[tuple[int, NDArray[Any]]]:
        """Copy ``planes``, (C, H, W), the pixels of ``box``; yield the number and (C, tile, tile) of complete tiles.

        Beyond the edges of the result a tile is filled with zeros. Lazy: the copy is done when all is yielded.
        """
        for index in self._grid.touched(box):
            tile = self._grid.tile_box(index)
            part = tile.intersect(box)
            pixels, missing_px = self._open.pop(index) if index in self._open else (self._new(tile), tile.area)
            pixels[(slice(None), *part.slices(tile))] = planes[(slice(None), *part.slices(box))]
            if missing_px > part.area:
                self._open[index] = pixels, missing_px - part.area
            else:
                yield index, pixels

    def clear(self) -> None:
        self._open.clear()

    def _new(self, tile: Box) -> NDArray[Any]:
        whole = tile.shape == self._shape[1:]
        return np.empty(self._shape, self._dtype) if whole else np.zeros(self._shape, self._dtype)


def most_open_tiles(plan: WritePlan, grid: TileGrid) -> int:
    """The most tiles that are in assembly at once when the boxes of ``plan`` come row by row."""
    first_row, last_row = _first_and_last(np.array([span.stop for span in plan.rows]), grid.height, grid.tile_px)
    first_column, last_column = _first_and_last(
        np.array([span.stop for span in plan.columns]), grid.width, grid.tile_px
    )
    boxes_per_row = len(plan.columns)
    opened_at = (first_row[:, None] * boxes_per_row + first_column).ravel()
    closed_at = (last_row[:, None] * boxes_per_row + last_column).ravel()
    straddling = closed_at > opened_at
    boxes = len(plan.rows) * boxes_per_row
    opened = np.bincount(opened_at[straddling], minlength=boxes + 1)
    closed = np.bincount(closed_at[straddling] + 1, minlength=boxes + 1)
    within_one_box = 1  # a tile that one box fills is in assembly alone
    return int(np.cumsum(opened - closed).max()) + within_one_box


def _first_and_last(stops: NDArray[np.int_], size: int, tile_px: int) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
    """Of every tile on one axis, the numbers of the spans (given by their ends) with its first and last pixel."""
    starts = np.arange(0, size, tile_px)
    ends = np.minimum(starts + tile_px, size)
    return np.searchsorted(stops, starts, side="right"), np.searchsorted(stops, ends - 1, side="right")
