"""Measure how far results are from the exact ones."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.contract import ResultOutput
from exactile.contract.tolerance import Tolerance

LABEL_KINDS = {"labels", "multilabel"}
ROWS_AT_ONCE = 64
"""Rows that are compared at a time, in float64, so that a comparison takes little memory."""


@dataclass(slots=True)
class Difference:
    """The largest differences so far. Scores that are not numbers are equal to each other, and infinitely far from
    others.
    """

    largest: float = 0.0
    lowest: float = inf
    highest: float = -inf
    differing: int = 0
    labels_seen: int = 0
    scores_seen: int = 0

    def add(self, result: ResultOutput, exact: NDArray[Any], other: NDArray[Any]) -> None:
        """Add two results of the same zone, (H, W) or (C, H, W)."""
        for row in range(0, exact.shape[-2], ROWS_AT_ONCE):
            rows = (..., slice(row, row + ROWS_AT_ONCE), slice(None))
            if result.kind in LABEL_KINDS:
                self._add_labels(exact[rows], other[rows])
                continue
            if exact.shape[0] > 1:
                self._add_labels(exact[rows].argmax(0), other[rows].argmax(0))
            self._add_scores(exact[rows].astype(np.float64), other[rows].astype(np.float64))

    def _add_scores(self, exact: NDArray[np.float64], other: NDArray[np.float64]) -> None:
        same = (exact == other) | (np.isnan(exact) & np.isnan(other))
        with np.errstate(invalid="ignore"):
            gap = np.where(same, 0.0, np.abs(exact - other))
        self.largest = max(self.largest, float(np.nan_to_num(gap, nan=inf).max(initial=0.0)))
        finite = exact[np.isfinite(exact)]
        self.lowest = min(self.lowest, float(finite.min(initial=inf)))
        self.highest = max(self.highest, float(finite.max(initial=-inf)))
        self.scores_seen += exact.size

    def _add_labels(self, exact: NDArray[Any], other: NDArray[Any]) -> None:
        self.differing += int(np.count_nonzero(exact != other))
        self.labels_seen += exact.size

    @property
    def scores(self) -> float | None:
        """The largest difference relative to the range of exact scores; None if there are none."""
        if not self.scores_seen:
            return None
        if self.largest == 0:
            return 0.0
        return self.largest / (self.highest - self.lowest) if self.highest > self.lowest else inf

    @property
    def labels(self) -> float | None:
        """The fraction of labels that differ; None if there are none."""
        return self.differing / self.labels_seen if self.labels_seen else None

    def by(self, tolerance: Tolerance) -> float:
        """Return the error of the kind of ``tolerance``, which must exist."""
        found = self.scores if tolerance.kind == "scores" else self.labels
        assert found is not None
        return found
