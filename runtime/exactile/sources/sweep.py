"""Read a whole image once, block by block, in any shape of blocks."""

from __future__ import annotations

from exactile.geometry import Span
from exactile.sources.protocol import ReadPlan, Source

SIDES = (256, 512, 1024, 2048)
"""Rows of blocks that are narrower than the image: multiples of usual file tiles."""


def sweep_plan(source: Source, block_bytes: int) -> ReadPlan:
    """Return blocks of about ``block_bytes``, of the shape that keeps the fewest decoded chunks."""
    row_bytes = source.channels * source.dtype.itemsize
    shapes = [(max(1, block_bytes // (source.width * row_bytes)), source.width)]
    for rows in SIDES:
        columns = block_bytes // (rows * row_bytes) // SIDES[0] * SIDES[0]
        if columns and columns < source.width:
            shapes.append((rows, columns))
    plans = [ReadPlan(rows=_cut(source.height, rows), columns=_cut(source.width, columns)) for rows, columns in shapes]
    return min(plans, key=source.cache_bytes)


def _cut(size: int, step: int) -> list[Span]:
    return [Span(start, min(start + step, size)) for start in range(0, size, step)]
