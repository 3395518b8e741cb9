"""Fill an input tile from the source, border included."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.geometry import Box, Span
from exactile.plan.border import OUTSIDE, Border, image_indices, needed_span
from exactile.plan.strips import StripPlan
from exactile.plan.tiles import TilePlan
from exactile.sources.protocol import ReadPlan, Source


def read_plan(plan: TilePlan | StripPlan) -> ReadPlan:
    """Return the reads for staging every tile of ``plan``."""
    return ReadPlan(rows=plan.y.needed(plan.border), columns=plan.x.needed(plan.border))


def stage_tile(source: Source, tile: Box, border: Border, out: NDArray[Any]) -> None:
    """Fill ``out`` (H, W, C) with the pixels of ``tile``, which may reach beyond the image."""
    image = Box(Span(0, source.height), Span(0, source.width))
    if image.contains(tile):
        source.read(tile, out)
        return
    needed = Box(needed_span(tile.y, source.height, border), needed_span(tile.x, source.width, border))
    if needed.area == 0:
        out[...] = 0
        return
    rows = image_indices(tile.y, source.height, border)
    columns = image_indices(tile.x, source.width, border)
    if tile.contains(needed):
        _stage_in_place(source, tile, needed, rows, columns, out)
    else:
        pixels = np.empty((*needed.shape, source.channels), source.dtype)
        source.read(needed, pixels)
        out[...] = pixels[np.ix_(rows - needed.y.start, columns - needed.x.start)]
        _blank(rows, columns, out)


def _stage_in_place(
    source: Source, tile: Box, needed: Box, rows: NDArray[np.int64], columns: NDArray[np.int64], out: NDArray[Any]
) -> None:
    """Read the image's part in place, then copy border rows and columns from inside the tile."""
    y, x = needed.slices(tile)
    source.read(needed, out[y, x])
    for position in _outside(y, len(rows)):
        if rows[position] != OUTSIDE:
            out[position, x] = out[rows[position] - tile.y.start, x]
    for position in _outside(x, len(columns)):
        if columns[position] != OUTSIDE:
            out[:, position] = out[:, columns[position] - tile.x.start]
    _blank(rows, columns, out)


def _outside(inside: slice, length: int) -> list[int]:
    return [*range(inside.start), *range(inside.stop, length)]


def _blank(rows: NDArray[np.int64], columns: NDArray[np.int64], out: NDArray[Any]) -> None:
    out[rows == OUTSIDE] = 0
    out[:, columns == OUTSIDE] = 0
