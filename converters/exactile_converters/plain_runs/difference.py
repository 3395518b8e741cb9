"""Compare two maps of scores: labels, values, and where they differ."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

TOLERANCE = 1e-5
"""Tolerance relative to the largest value, for another order of summation. A wrong halo changes far more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The difference of two maps.

    ``error_map`` (H, W) is the largest difference over the channels; ``first`` (y, x) the first pixel beyond tolerance.
    ``ties`` are those of the ``different_labels`` whose two best scores lie within the tolerance of each other.
    """

    different_labels: int
    ties: int
    max_abs: float
    rmse: float
    tolerance: float
    different_values: int
    first: tuple[int, int] | None
    error_map: Array = field(repr=False, compare=False)

    @property
    def bit_identical(self) -> bool:
        return self.different_values == 0

    @property
    def holds(self) -> bool:
        """Return whether no value is beyond the tolerance and labels differ only at ties."""
        return self.first is None and self.different_labels == self.ties


BLOCK_VALUES = 1 << 20
"""Maps are compared a few rows at a time, so that their copies in float64 are small."""


def compare(tiled: Array, whole: Array, *, probability: bool) -> Difference:
    """Compare (C, H, W) ``tiled`` with ``whole``; a ``probability`` of a single channel is thresholded at one half."""
    if tiled.shape != whole.shape:
        raise ValueError(f"maps of {tiled.shape} and {whole.shape} cannot be compared")
    largest = max((_largest(whole[:, rows]) for rows in blocks(whole)), default=0.0)
    tolerance = relative_tolerance(whole.dtype) * largest
    found = [_rows(tiled[:, rows], whole[:, rows], tolerance, 0.5 if probability else 0.0) for rows in blocks(whole)]
    error_map = np.concatenate([one.error_map for one in found])
    beyond = [(number, one.first) for number, one in zip(blocks(whole), found, strict=True) if one.first]
    return Difference(
        different_labels=sum(one.different_labels for one in found),
        ties=sum(one.ties for one in found),
        max_abs=max(one.max_abs for one in found),
        rmse=float(np.sqrt(sum(one.squares for one in found) / whole.size)),
        tolerance=tolerance,
        different_values=sum(one.different_values for one in found),
        first=(beyond[0][0].start + beyond[0][1][0], beyond[0][1][1]) if beyond else None,
        error_map=error_map,
    )


def blocks(whole: Array) -> list[slice]:
    """Return slices of rows of (C, H, W), each with about BLOCK_VALUES values."""
    channels, height, width = whole.shape
    step = max(1, BLOCK_VALUES // max(1, channels * width))
    return [slice(start, min(start + step, height)) for start in range(0, height, step)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """``Difference`` for some rows; ``squares`` is the sum of the squared differences."""

    different_labels: int
    ties: int
    max_abs: float
    squares: float
    different_values: int
    first: tuple[int, int] | None
    error_map: Array


def _rows(tiled: Array, whole: Array, tolerance: float, threshold: float) -> _Rows:
    one, other = tiled.astype(np.float64), whole.astype(np.float64)
    same = (tiled == whole) | (np.isnan(one) & np.isnan(other))
    with np.errstate(invalid="ignore"):
        gap = np.where(same, 0.0, np.abs(one - other))
    gap = np.where(np.isfinite(gap), gap, np.inf)
    errors = gap.max(axis=0)
    wrong = labels(one, threshold) != labels(other, threshold)
    beyond = np.argwhere(errors > tolerance)
    return _Rows(
        different_labels=int(wrong.sum()),
        ties=int((wrong & (margins(other, threshold) <= 2 * tolerance)).sum()),
        max_abs=float(errors.max()),
        squares=float(np.sum(gap**2)),
        different_values=int((~same).sum()),
        first=(int(beyond[0][0]), int(beyond[0][1])) if beyond.size else None,
        error_map=errors.astype(np.float32),
    )


def _largest(values: Array) -> float:
    """Return the largest finite magnitude."""
    wide = values.astype(np.float64)
    return float(np.abs(wide[np.isfinite(wide)]).max(initial=0.0))


def probability_rmse(tiled: Array, whole: Array, *, already: bool) -> float:
    """Return the root mean square error of probabilities, from (C, H, W) scores or, if ``already``, probabilities."""
    squares = 0.0
    for rows in blocks(whole):
        gap = probabilities(tiled[:, rows], already=already) - probabilities(whole[:, rows], already=already)
        squares += float(np.sum(gap**2))
    return float(np.sqrt(squares / whole.size))


def relative_tolerance(dtype: np.dtype[Any]) -> float:
    """Return the tolerance relative to the largest value.

    It is TOLERANCE, two units in the last place for half precision, and 0 for integers.
    """
    return max(TOLERANCE, 2 * float(np.finfo(dtype).eps)) if dtype.kind == "f" else 0.0


def labels(scores: Array, threshold: float) -> Array:
    """Map (C, H, W) to (H, W): the best channel, or whether the only one is above ``threshold``."""
    return np.asarray(scores.argmax(axis=0) if scores.shape[0] > 1 else scores[0] > threshold)


def margins(scores: Array, threshold: float) -> Array:
    """Map (C, H, W) to (H, W): the distance of a label from the next one."""
    if scores.shape[0] == 1:
        return np.asarray(np.abs(scores[0] - threshold))
    best = np.partition(scores, -2, axis=0)
    return np.asarray(best[-1] - best[-2])


def probabilities(scores: Array, *, already: bool) -> Array:
    """Apply softmax over the channels (C, H, W), or sigmoid to a single one; keep what is ``already`` probability."""
    if already or scores.dtype.kind != "f":
        return scores.astype(np.float64)
    values = scores.astype(np.float64)
    if values.shape[0] == 1:
        return np.asarray(1 / (1 + np.exp(-np.clip(values, -700, 700))))
    powers = np.exp(values - values.max(axis=0))
    return np.asarray(powers / powers.sum(axis=0))
