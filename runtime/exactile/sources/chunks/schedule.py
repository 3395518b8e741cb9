"""The next use of a decoded chunk: known for an announced plan, guessed without one.

A plan is separable: box (r, c) covers the rows of ``plan.rows[r]`` and the columns of ``plan.columns[c]``, so chunk
(row, column) is used ``uses_y[row] * uses_x[column]`` times, first by box (first_y[row], first_x[column]) and last by
box (last_y[row], last_x[column]), in row-major order.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from exactile.geometry import Box, Span
from exactile.sources.chunks.grid import ChunkGrid
from exactile.sources.protocol import ReadPlan

NextUses = list[list[int | None]]
"""For each row and column of chunks that a box touches: when the chunk is used next, None for never again."""


class ChunkSchedule(Protocol):
    """Decides, read by read, which chunks to keep."""

    def advance(self, box: Box) -> NextUses:
        """Count one use of every chunk that ``box`` touches; smaller numbers are used earlier."""


class RecentFirst:
    """Without a plan: what was used last is assumed to be used first."""

    def __init__(self, grid: ChunkGrid) -> None:
        self._grid = grid
        self._reads = 0

    def advance(self, box: Box) -> NextUses:
        self._reads += 1
        rows, columns = self._grid.cells(box)
        return [[-self._reads] * len(columns) for _ in rows]


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisUses:
    """For each chunk along one axis: by how many spans it is used, and the first and last of them."""

    uses: NDArray[np.int64]
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    boxes: int

    @staticmethod
    def of(spans: Sequence[Span], chunk_size: int, chunks: int) -> AxisUses:
        uses = np.zeros(chunks, np.int64)
        first = np.full(chunks, len(spans), np.int64)
        last = np.full(chunks, -1, np.int64)
        for index, span in enumerate(spans):
            touched = slice(span.start // chunk_size, -(-span.stop // chunk_size) if span.length else 0)
            uses[touched] += 1
            first[touched] = np.minimum(first[touched], index)
            last[touched] = index
        return AxisUses(uses=uses, first=first, last=last, boxes=len(spans))

    @property
    def used(self) -> int:
        """Chunks that are used at all."""
        return int(np.count_nonzero(self.uses))

    def opening(self) -> NDArray[np.int64]:
        """For each span: chunks used there first."""
        return np.bincount(self.first[self.uses > 0], minlength=self.boxes)

    def closing(self) -> NDArray[np.int64]:
        """For each span: chunks used there last."""
        return np.bincount(self.last[self.uses > 0], minlength=self.boxes)

    def alone(self) -> NDArray[np.int64]:
        """For each span: chunks used there and nowhere else."""
        return np.bincount(self.first[(self.uses > 0) & (self.first == self.last)], minlength=self.boxes)

    def met(self) -> NDArray[np.int64]:
        """For each span: chunks used there or before."""
        return np.cumsum(self.opening())

    def unmet(self) -> NDArray[np.int64]:
        """For each span: chunks used there or later."""
        closing = self.closing()
        return self.used - np.cumsum(closing) + closing

    def open(self) -> NDArray[np.int64]:
        """For each span: chunks whose first use is there or before and whose last is there or later."""
        # The others have either not been met yet or are not met again, never both.
        return self.met() + self.unmet() - self.used


class SweepSchedule:
    """The uses of every chunk under an announced plan, counted down as the boxes are read."""

    def __init__(self, grid: ChunkGrid, plan: ReadPlan) -> None:
        self._grid = grid
        self._starts_y = [span.start for span in plan.rows]
        self._starts_x = [span.start for span in plan.columns]
        self._y = AxisUses.of(plan.rows, grid.chunk_rows, grid.rows)
        self._x = AxisUses.of(plan.columns, grid.chunk_columns, grid.columns)

    @cached_property
    def _left(self) -> NDArray[np.int32]:
        """How often each chunk is still used. Not needed to plan."""
        return np.multiply.outer(self._y.uses.astype(np.int32), self._x.uses.astype(np.int32))

    @property
    def has_chunks_used_once(self) -> bool:
        """Whether there are chunks that a single box uses: ``peak_chunks`` leaves them out."""
        return bool(self._y.alone().any() and self._x.alone().any())

    def peak_chunks(self) -> int:
        """Return the most chunks of one plane that are held at once so that each is decoded once.

        Held during the read of box (r, c) are the chunks whose first use is there or before and whose last use is
        there or later, but for those used only there. Chunk rows fall into four kinds at r: used before and after
        (all their columns are held), first used here (the columns met so far), last used here (the columns yet to
        be met), and used by this row of boxes alone (columns shared by neighbouring boxes).
        """
        y, x = self._y, self._x
        single = y.alone()
        opening, closing = y.opening() - single, y.closing() - single
        through = y.open() - opening - closing - single
        met, unmet, shared = x.met(), x.unmet(), x.open() - x.alone()
        peak = 0
        # Few rows of boxes differ, so the product of both axes is never formed.
        for a, b, c, d in {*zip(through.tolist(), opening.tolist(), closing.tolist(), single.tolist(), strict=True)}:
            held = a * x.used + b * met + c * unmet + d * shared
            peak = max(peak, int(held.max(initial=0)))
        return peak

    def most_chunks_of_a_box(self) -> int:
        """Return the most chunks of one plane that one box of the plan touches, or slightly more."""
        return int(self._y.open().max(initial=0)) * int(self._x.open().max(initial=0))

    def advance(self, box: Box) -> NextUses:
        rows, columns = self._grid.cells(box)
        left = self._left[rows.start : rows.stop, columns.start : columns.stop]
        left -= 1
        boxes = len(self._starts_x)
        row_start = (bisect_right(self._starts_y, box.y.start) - 1) * boxes
        column = bisect_right(self._starts_x, box.x.start) - 1
        next_in_row = [
            row_start + column + 1 if last > column else row_start + boxes + first
            for first, last in zip(
                self._x.first[columns.start : columns.stop].tolist(),
                self._x.last[columns.start : columns.stop].tolist(),
                strict=True,
            )
        ]
        return [
            [use if count > 0 else None for count, use in zip(counts, next_in_row, strict=True)]
            for counts in left.tolist()
        ]
