"""Convert the graph's values to the stored type: narrowed only if every value fits, and checked for NaN."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.contract import ResultOutput
from exactile.errors import EngineError
from exactile.geometry import Box

Array = NDArray[Any]

PIECE_VALUES = 1 << 18
"""Values that are converted at a time, so that intermediates take little memory."""

PROBABILITY_SLACK = 1e-4
"""Sums of float32 may lie beyond 0 to 1 by this much."""

NAN_STORED_AS = 0
"""The label where scores are NaN: no class has the largest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NanReport:
    """Pixels of the result whose scores are not numbers, and the first of them found, (row, column)."""

    pixels: int = 0
    first: tuple[int, int] | None = None


NO_NAN = NanReport()


class StoredValues:
    """Takes the blocks of one result, in any order; if the graph's ranges prove everything, nothing is checked."""

    def __init__(self, result: ResultOutput) -> None:
        self._result = result
        self._stored = np.dtype(result.stored_dtype)
        self._narrows = result.stored_dtype != result.dtype
        self.nan = NO_NAN

    def take(self, box: Box, block: Array) -> Array:
        """Return the values to write for ``box``; ``block`` may be changed in place.

        Raises EngineError naming pixel and value if one cannot be stored unchanged.
        """
        result = self._result
        if result.nan_label is not None:
            self._replace_nan(box, block, result.nan_label)
        elif result.may_be_nan:
            self._count_nan(box, block)
        if not self._narrows and not result.unproven:
            return block
        out = np.empty(block.shape, self._stored) if self._narrows else block
        for rows in _pieces(block.shape):
            self._check(box, rows, block[..., rows, :])
            if self._narrows:
                out[..., rows, :] = self._converted(block[..., rows, :])
        return out

    def _replace_nan(self, box: Box, block: Array, mark: int) -> None:
        # Most blocks cost only one pass that finds nothing.
        if block.size and block.max() == mark:
            found = block == mark
            self._note(box, found)
            block[found] = NAN_STORED_AS

    def _count_nan(self, box: Box, block: Array) -> None:
        if np.isnan(np.add.reduce(block, axis=None, dtype=np.float32)):
            self._note(box, np.isnan(block))

    def _note(self, box: Box, found: NDArray[np.bool_]) -> None:
        pixels = found if found.ndim == 2 else np.atleast_2d(found.any(0))
        count = int(np.count_nonzero(pixels))
        if count:
            first = self.nan.first or _place(box, pixels, 0)
            self.nan = NanReport(pixels=self.nan.pixels + count, first=first)

    def _check(self, box: Box, rows: slice, piece: Array) -> None:
        low, high = self._limits()
        with np.errstate(invalid="ignore"):
            least, most = (piece.min(), piece.max()) if piece.size else (low, low)
            fits = bool(low <= least and most <= high)
            if fits and not self._needs_whole:
                return
            wrong = ~((piece >= low) & (piece <= high))
            if self._needs_whole and piece.dtype.kind == "f":
                wrong |= piece != np.trunc(piece)
            if self._nan_allowed:
                wrong &= ~np.isnan(piece)
            if self._infinity_allowed:
                wrong &= ~np.isinf(piece)
        if wrong.any():
            planes = wrong if wrong.ndim == 2 else np.atleast_2d(wrong.any(0))
            y, x = _place(box, planes, rows.start)
            value = piece[..., y - box.y.start - rows.start, x - box.x.start]
            shown = value if wrong.ndim == 2 else value[~((value >= low) & (value <= high))][0]
            raise EngineError(f"the result at row {y}, column {x} is {shown}, {self._complaint()}")

    @property
    def _needs_whole(self) -> bool:
        return self._result.kind == "labels" and np.dtype(self._result.dtype).kind == "f"

    @property
    def _nan_allowed(self) -> bool:
        return self._stored.kind == "f"

    @property
    def _infinity_allowed(self) -> bool:
        return self._result.kind == "raw" and self._stored.kind == "f"

    def _limits(self) -> tuple[float, float]:
        if self._result.kind == "probabilities":
            return -PROBABILITY_SLACK, 1 + PROBABILITY_SLACK
        if self._stored.kind in "iu":
            info = np.iinfo(self._stored)
            return info.min, info.max
        if np.dtype(self._result.dtype).kind in "iu":
            exact = 1 << (np.finfo(self._stored).nmant + 1)
            return -exact, exact
        largest = float(np.finfo(self._stored).max)
        return -largest, largest

    def _complaint(self) -> str:
        if self._result.kind == "probabilities":
            return (
                "which is not a probability; declare the output with --activation sigmoid or softmax, or take it as "
                "it is with --output raw"
            )
        if self._result.kind == "labels":
            return f"which labels of {self._stored} cannot hold; write the output as it is with --output raw"
        if np.dtype(self._result.dtype).kind in "iu":
            return f"which {self._stored} does not hold exactly; use --output labels"
        return f"which {self._stored} cannot hold; use --map-dtype float32"

    def _converted(self, piece: Array) -> Array:
        if self._result.kind == "probabilities" and self._stored.kind == "u":
            scaled = np.rint(np.clip(piece, 0, 1) * np.float32(255))
            return np.asarray(scaled.astype(self._stored))
        return np.asarray(piece.astype(self._stored))


def _pieces(shape: tuple[int, ...]) -> Iterator[slice]:
    *front, height, width = shape
    row = max(1, width * (front[0] if front else 1))
    step = max(1, PIECE_VALUES // row)
    for start in range(0, height, step):
        yield slice(start, min(start + step, height))


def _place(box: Box, found: NDArray[np.bool_], first_row: int) -> tuple[int, int]:
    row, column = np.unravel_index(int(found.argmax()), found.shape)
    return box.y.start + first_row + int(row), box.x.start + int(column)
