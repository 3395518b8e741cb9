"""Interval arithmetic over the extended reals, with NaN tracked separately: which values a number can have.

Bounds hold in exact arithmetic; float32 may exceed them by its rounding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """``low`` to ``high``, both possible; ``whole``: integers only; ``nan``: may also be NaN."""

    low: float
    high: float
    whole: bool = False
    nan: bool = False

    def __post_init__(self) -> None:
        if math.isnan(self.low) or math.isnan(self.high) or self.low > self.high:
            raise ValueError(
                f"an interval goes from a number to one that is not smaller, got {self.low} to {self.high}"
            )

    @property
    def bounded(self) -> bool:
        return math.isfinite(self.low) and math.isfinite(self.high)

    def within(self, low: float, high: float, *, slack: float = 0.0) -> bool:
        """Return whether no value lies outside ``low`` to ``high`` by more than ``slack``; NaN is ignored."""
        return low - slack <= self.low and self.high <= high + slack

    def hull(self, other: Interval) -> Interval:
        """Return the hull of both."""
        return Interval(
            low=min(self.low, other.low),
            high=max(self.high, other.high),
            whole=self.whole and other.whole,
            nan=self.nan or other.nan,
        )

    def with_zero(self) -> Interval:
        """Return the hull with zero."""
        return self.hull(ZERO)

    def limited(self, dtype: np.dtype[Any]) -> Interval:
        """Return the interval of the values as ``dtype``: floats overflow to infinity, integers wrap."""
        if dtype.kind == "b":
            return Interval(low=max(0.0, min(self.low, 1.0)), high=1.0 if self.high > 0 else 0.0, whole=True)
        if dtype.kind in "iu":
            info = np.iinfo(dtype)
            if self.nan or not self.within(float(info.min), float(info.max)):
                return of_type(dtype)
            return replace(self, low=float(math.trunc(self.low)), high=float(math.trunc(self.high)), whole=True)
        largest = float(np.finfo(dtype).max) if dtype.kind == "f" else math.inf
        low = -math.inf if self.low < -largest else min(self.low, largest)
        high = math.inf if self.high > largest else max(self.high, -largest)
        return replace(self, low=low, high=high)

    def monotone(self, low: float, high: float, *, whole: bool = False) -> Interval:
        """Return the image of this interval under a rising function that maps its ends to ``low`` and ``high``."""
        return Interval(low=low, high=high, whole=whole, nan=self.nan)

    def __neg__(self) -> Interval:
        return replace(self, low=-self.high, high=-self.low)

    def __add__(self, other: Interval) -> Interval:
        opposite = (self.high == math.inf and other.low == -math.inf) or (
            self.low == -math.inf and other.high == math.inf
        )
        return Interval(
            low=-math.inf if -math.inf in (self.low, other.low) else self.low + other.low,
            high=math.inf if math.inf in (self.high, other.high) else self.high + other.high,
            whole=self.whole and other.whole,
            nan=self.nan or other.nan or opposite,
        )

    def __sub__(self, other: Interval) -> Interval:
        return self + -other

    def __mul__(self, other: Interval) -> Interval:
        ends = [_times(a, b) for a in (self.low, self.high) for b in (other.low, other.high)]
        zero_times_infinity = (not self.bounded and other.within_zero()) or (not other.bounded and self.within_zero())
        return Interval(
            low=min(ends),
            high=max(ends),
            whole=self.whole and other.whole,
            nan=self.nan or other.nan or zero_times_infinity,
        )

    def __truediv__(self, other: Interval) -> Interval:
        if other.within_zero():
            return UNKNOWN
        share = Interval(low=1 / other.high, high=1 / other.low, nan=other.nan)
        found = self * share
        return replace(found, whole=False, nan=found.nan or (not self.bounded and not other.bounded))

    def within_zero(self) -> bool:
        """Return whether it contains 0."""
        return self.low <= 0 <= self.high


def _times(a: float, b: float) -> float:
    """Return the product, where 0 times infinity is 0: the infinity then comes from the other ends."""
    return 0.0 if 0 in (a, b) else a * b


ZERO = Interval(low=0.0, high=0.0, whole=True)
UNIT = Interval(low=0.0, high=1.0)
UNKNOWN = Interval(low=-math.inf, high=math.inf, nan=True)

BLOCK = 1 << 18
"""A constant is scanned this many numbers at a time: copies of large ones would take more than the network."""


def of_type(dtype: np.dtype[Any]) -> Interval:
    """Return the range of ``dtype``."""
    if dtype.kind == "b":
        return Interval(low=0.0, high=1.0, whole=True)
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        return Interval(low=float(info.min), high=float(info.max), whole=True)
    return UNKNOWN


def of_array(array: NDArray[np.generic]) -> Interval:
    """Return the range from the smallest to the largest value of a constant."""
    if not array.size or array.dtype.kind not in "biuf":
        return UNKNOWN
    flat = array.reshape(-1)
    parts = [_of_numbers(flat[start : start + BLOCK]) for start in range(0, flat.size, BLOCK)]
    known = [part for part in parts if part is not None]
    if not known:
        return UNKNOWN
    return Interval(
        low=min(part.low for part in known),
        high=max(part.high for part in known),
        whole=all(part.whole for part in known),
        nan=len(known) < len(parts) or any(part.nan for part in known),
    )


def _of_numbers(array: NDArray[np.generic]) -> Interval | None:
    """Return the range of one block; None where all of it is NaN."""
    numbers = array.astype(np.float64)
    known = numbers[~np.isnan(numbers)]
    if not known.size:
        return None
    return Interval(
        low=float(known.min()),
        high=float(known.max()),
        whole=bool((np.isfinite(known) & (known == np.trunc(known))).all()),
        nan=known.size < numbers.size,
    )


def of_number(value: float) -> Interval:
    """Return the range of one number."""
    return Interval(low=value, high=value, whole=float(value).is_integer())
