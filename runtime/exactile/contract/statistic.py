"""Statistics of a whole feature map that a network takes: a few numbers."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Literal

StatisticKind = Literal["mean", "moments", "sum", "maximum", "minimum"]

Grid = tuple[int, int]
"""Rows and columns of the bins that a map is divided into."""

WHOLE_MAP: Grid = (1, 1)
"""One bin: all of it."""

PREFIX = "exactile_statistic_"
"""Prefix of graph inputs that take statistics."""

FIXED = "exactile_fixed_"
"""Prefix of constants that stand for statistics, and of those that follow from them."""

ZONE = "exactile_zone"
"""A further input of graphs that find statistics, int64 (4,): first row and the one past the last, first column and the
one past the last, of the part of the tile that partial statistics are taken of; in pixels of the tile, multiples of the
stride; at the end of the image beyond all pixels."""

PARTIALS = "exactile_partials"
"""The output of such graphs, float64 (P,): partial statistics, one after the other; see ``Statistic.numbers``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistic:
    """A statistic of a feature map of ``channels`` channels, over all rows and columns.

    ``groups`` are its entries: one for each channel, one for each group of neighbouring channels, or 1 for all.
    Further graphs take it by ``inputs``, float32 of ``shapes``: the number, or for ``moments`` the mean and the biased
    variance. Where a shape has more entries than there are groups, each number is repeated for its share of them.

    With a ``grid``, a mean or maximum is taken of each bin, as of adaptive pooling: along an axis of n pixels, bin i of
    k holds ``floor(i*n/k)`` and following, before ``ceil((i+1)*n/k)``. Graphs of such a pass take the position of tiles
    (``exactile.contract.POSITION``). Shapes are then (1, C, rows, columns).
    """

    kind: StatisticKind
    channels: int
    groups: int
    inputs: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    grid: Grid = WHOLE_MAP

    def __post_init__(self) -> None:
        if self.grid != WHOLE_MAP and (self.kind not in ("mean", "maximum") or self.groups != self.channels):
            raise ValueError(
                f"a grid is for the mean or maximum of each channel, got {self.grid} for the {self.kind} of "
                f"{self.groups} groups of {self.channels} channels"
            )

    @property
    def bins(self) -> int:
        return prod(self.grid)

    @property
    def numbers(self) -> int:
        """How many numbers a tile gives: its pixels n, and for each channel sum, maximum or minimum.

        For moments: a number m near the mean, the sum of x - m, and that of (x - m)^2. With a grid, the pixels of each
        bin, and for each channel the sum or maximum of each bin.
        """
        return self.bins * (1 + self.channels * (3 if self.kind == "moments" else 1))
