"""Merge partial statistics of zones into statistics of the image, in float64.

Means and variances are merged pair by pair (Chan, Golub & LeVeque 1983, "Algorithms for computing the sample
variance"): no square of a mean is subtracted from a mean of squares.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.contract.statistic import Statistic

Array = NDArray[np.float64]

Parts = tuple[Array, ...]
"""The state of a statistic so far: the same arrays for as long as it is merged."""


class Merged:
    """Partial statistics, merged in the order in which they are added."""

    def __init__(self, statistics: Sequence[Statistic]) -> None:
        self._merging = [_MERGING[statistic.kind](statistic) for statistic in statistics]
        self.numbers = sum(statistic.numbers for statistic in statistics)

    def add(self, partials: NDArray[np.float64]) -> None:
        """Merge the partial statistics of a zone, (P,): see ``Statistic.numbers``."""
        start = 0
        for merging in self._merging:
            stop = start + merging.statistic.numbers
            numbers = start + merging.statistic.bins
            merging.add(partials[start:numbers], partials[numbers:stop])
            start = stop

    def state(self) -> NDArray[np.float64]:
        """Return the state so far, (S,), a copy; ``restore`` continues from it, to the same bits."""
        return np.concatenate([part.ravel() for merging in self._merging for part in merging.parts])

    def restore(self, state: NDArray[np.float64]) -> None:
        """Continue from a ``state`` of the same statistics. Raises ValueError if it is that of others."""
        parts = [part for merging in self._merging for part in merging.parts]
        size = sum(part.size for part in parts)
        if state.shape != (size,):
            raise ValueError(f"the state of these statistics is {size} numbers, got an array of {state.shape}")
        start = 0
        for part in parts:
            part[...] = state[start : start + part.size].reshape(part.shape)
            start += part.size

    def values(self) -> dict[str, NDArray[np.float32]]:
        """Return the inputs of further graphs, by name."""
        found: dict[str, NDArray[np.float32]] = {}
        for merging in self._merging:
            one = merging.statistic
            for name, shape, value in zip(one.inputs, one.shapes, merging.values(), strict=True):
                found[name] = _shaped(value, shape)
        return found


def _shaped(value: Array, shape: tuple[int, ...]) -> NDArray[np.float32]:
    repeated = np.repeat(value, prod(shape) // len(value))
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(repeated.astype(np.float32).reshape(shape))


class _Sums:
    """Sums of each bin; there is one bin if the map is not divided."""

    def __init__(self, statistic: Statistic) -> None:
        self.statistic = statistic
        self._pixels = np.zeros(statistic.bins)
        self._sums = np.zeros((statistic.channels, statistic.bins))
        self.parts: Parts = (self._pixels, self._sums)

    def add(self, pixels: Array, numbers: Array) -> None:
        self._pixels += pixels
        self._sums += numbers.reshape(self._sums.shape)

    def values(self) -> tuple[Array, ...]:
        statistic = self.statistic
        sums = self._sums.reshape(statistic.groups, -1, statistic.bins)
        total = sums.sum(1)
        if statistic.kind == "mean":
            with np.errstate(invalid="ignore", divide="ignore"):
                total = total / (self._pixels * sums.shape[1])
        return (total.ravel(),)


class _Extremes:
    """Extremes of each bin; there is one bin if the map is not divided."""

    def __init__(self, statistic: Statistic) -> None:
        self.statistic = statistic
        self._best = np.maximum if statistic.kind == "maximum" else np.minimum
        nothing = -np.inf if statistic.kind == "maximum" else np.inf
        self._found = np.full((statistic.channels, statistic.bins), nothing)
        self._pixels = np.zeros(statistic.bins)
        self.parts: Parts = (self._pixels, self._found)

    def add(self, pixels: Array, numbers: Array) -> None:
        better = self._best(self._found, numbers.reshape(self._found.shape))
        np.copyto(self._found, better, where=pixels > 0)
        self._pixels += pixels

    def values(self) -> tuple[Array, ...]:
        found = np.where(self._pixels > 0, self._found, np.nan)
        best = self._best.reduce(found.reshape(self.statistic.groups, -1, self.statistic.bins), axis=1)
        return (best.ravel(),)


class _Moments:
    def __init__(self, statistic: Statistic) -> None:
        self.statistic = statistic
        self._pixels = np.zeros(1)
        self._mean, self._spread = np.zeros(statistic.channels), np.zeros(statistic.channels)
        self.parts: Parts = (self._pixels, self._mean, self._spread)

    def add(self, pixels_of_bins: Array, numbers: Array) -> None:
        (pixels,) = pixels_of_bins
        if not pixels:
            return
        near, first, second = numbers.reshape(3, -1)
        with np.errstate(invalid="ignore", over="ignore"):
            mean = near + first / pixels
            spread = np.maximum(second - first * first / pixels, 0)
            delta, total = mean - self._mean, self._pixels + pixels
            self._spread += spread + delta * delta * (self._pixels * pixels / total)
            self._mean += delta * (pixels / total)
        self._pixels[:] = total

    def values(self) -> tuple[Array, ...]:
        """Merge the channels of a group, which have the same number of pixels."""
        means, spreads = (values.reshape(self.statistic.groups, -1) for values in (self._mean, self._spread))
        mean = means.mean(1)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            beside = ((means - mean[:, None]) ** 2).mean(1)
            variance = spreads.mean(1) / self._pixels + beside
        return mean, variance


_MERGING: Mapping[str, Any] = {
    "mean": _Sums,
    "sum": _Sums,
    "maximum": _Extremes,
    "minimum": _Extremes,
    "moments": _Moments,
}
