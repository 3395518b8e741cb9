"""Two maps of scores, compared: labels, values, and where they part."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

TOLERANCE = 1e-5
"""Of the largest value: what another order of summation may change. A wrong halo changes far more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """``error_map`` (H, W) is the largest difference over the channels; ``first`` (y, x) the first beyond tolerance.

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
        """No value beyond the tolerance and no label but at ties."""
        return self.first is None and self.different_labels == self.ties


def compare(tiled: Array, whole: Array, *, probability: bool) -> Difference:
    """Compare (C, H, W) ``tiled`` with ``whole``; ``probability``: single-channel scores are cut at one half."""
    if tiled.shape != whole.shape:
        raise ValueError(f"maps of {tiled.shape} and {whole.shape} cannot be compared")
    one, other = tiled.astype(np.float64), whole.astype(np.float64)
    same = (tiled == whole) | (np.isnan(one) & np.isnan(other))
    with np.errstate(invalid="ignore"):
        gap = np.where(same, 0.0, np.abs(one - other))
    gap = np.where(np.isfinite(gap), gap, np.inf)
    finite = np.abs(other[np.isfinite(other)])
    tolerance = relative_tolerance(whole.dtype) * float(finite.max(initial=0.0))
    error_map = gap.max(axis=0)
    threshold = 0.5 if probability else 0.0
    wrong = labels(one, threshold) != labels(other, threshold)
    beyond = np.argwhere(error_map > tolerance)
    return Difference(
        different_labels=int(wrong.sum()),
        ties=int((wrong & (margins(other, threshold) <= 2 * tolerance)).sum()),
        max_abs=float(error_map.max()),
        rmse=float(np.sqrt(np.mean(gap**2))),
        tolerance=tolerance,
        different_values=int((~same).sum()),
        first=(int(beyond[0][0]), int(beyond[0][1])) if beyond.size else None,
        error_map=error_map.astype(np.float32),
    )


def relative_tolerance(dtype: np.dtype[Any]) -> float:
    """As a share of the largest value: TOLERANCE, two units in the last place of half precision, 0 for integers."""
    return max(TOLERANCE, 2 * float(np.finfo(dtype).eps)) if dtype.kind == "f" else 0.0


def labels(scores: Array, threshold: float) -> Array:
    """(C, H, W) -> (H, W): the best channel, or whether the only one is above ``threshold``."""
    return np.asarray(scores.argmax(axis=0) if scores.shape[0] > 1 else scores[0] > threshold)


def margins(scores: Array, threshold: float) -> Array:
    """(C, H, W) -> (H, W): how far a label is from another one."""
    if scores.shape[0] == 1:
        return np.asarray(np.abs(scores[0] - threshold))
    best = np.partition(scores, -2, axis=0)
    return np.asarray(best[-1] - best[-2])


def probabilities(scores: Array, *, already: bool) -> Array:
    """Softmax over the channels (C, H, W), the sigmoid of a single one; nothing for what is ``already`` probability."""
    if already or scores.dtype.kind != "f":
        return scores.astype(np.float64)
    values = scores.astype(np.float64)
    if values.shape[0] == 1:
        return np.asarray(1 / (1 + np.exp(-np.clip(values, -700, 700))))
    powers = np.exp(values - values.max(axis=0))
    return np.asarray(powers / powers.sum(axis=0))
