"""Tallies of the samples of an image for normalisation, summed block by block, on one machine or by many.

8-bit and 16-bit samples are counted by value; mean, deviation and every percentile follow from the counts. For float32,
mean and deviation are merged block by block (Chan, Golub & LeVeque 1983), and percentiles are found by the upper and
then the lower 16 bits of a key that sorts as the samples do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from exactile.contract import ImageStatistics
from exactile.errors import SourceError

Array = NDArray[Any]

KEYS = 1 << 16
"""Number of values of 16 bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalizers:
    """``(sample - offset) / scale`` for each channel; both (C,) float64."""

    offset: NDArray[np.float64]
    scale: NDArray[np.float64]


class TallyPart(Protocol):
    """Adds up some blocks of one reading of the image."""

    def take(self, block: Array) -> None:
        """Add a block, (rows, columns, C) or (pixels, C)."""

    @property
    def parts(self) -> Array:
        """Return the parts for ``Tally.merge``."""


class Tally(Protocol):
    """Adds up one reading of the image. Plain data. ``ordered``: the last digits depend on the order of blocks."""

    ordered: ClassVar[bool]

    def take(self, block: Array) -> None:
        """Add a block, (rows, columns, C) or (pixels, C)."""

    def apart(self) -> TallyPart:
        """Return a part for some blocks that are read elsewhere."""

    def merge(self, parts: Array) -> None:
        """Add what a part has summed, as if its blocks had come here: after earlier ones, in their order."""


class Measuring:
    """The measurement of ``wanted`` on an image with samples of ``dtype``: ``tallies``, then ``normalizers``."""

    def __init__(self, dtype: np.dtype[Any], channels: int, wanted: ImageStatistics) -> None:
        self._dtype, self._channels, self._wanted = dtype, channels, wanted
        self._found: Callable[[], Normalizers] | None = None

    def tallies(self) -> Iterator[Tally]:
        """Yield one tally for each reading of the image; each is complete when the next one is requested.

        Raises SourceError if no pixel has data.
        """
        wanted = self._wanted
        if self._dtype.kind == "u" and self._dtype.itemsize <= 2:
            counts = Counts.of(self._channels, int(np.iinfo(self._dtype).max) + 1)
            yield counts
            _check_data(int(counts.parts[0].sum()))
            self._found = partial(_of_counts, counts.parts, wanted)
        elif wanted.kind == "zscore":
            moments = Moments.of(self._channels)
            yield moments
            _check_data(moments.count)
            self._found = partial(_of_moments, moments, wanted)
        else:
            upper = UpperKeys.of(self._channels)
            yield upper
            _check_data(int(upper.parts[0].sum()))
            high = upper.parts if wanted.per_channel else np.broadcast_to(upper.parts.sum(0), upper.parts.shape)
            lower = LowerKeys.of(_asked_keys(high, wanted), per_channel=wanted.per_channel)
            yield lower
            self._found = partial(_of_keys, high, lower, wanted)

    def normalizers(self) -> Normalizers:
        """Return the normalisers; call this when ``tallies`` has ended."""
        assert self._found is not None
        return self._found()


@dataclass(frozen=True, slots=True)
class _Counted:
    """Counts of values: ``parts`` (rows, number of values), int64, which may be added in any order."""

    ordered: ClassVar[bool] = False

    parts: Array

    def apart(self) -> Self:
        return replace(self, parts=np.zeros_like(self.parts))

    def merge(self, parts: Array) -> None:
        self.parts[...] += parts


class Counts(_Counted):
    """Counts of samples; a row is a channel."""

    @classmethod
    def of(cls, channels: int, values: int) -> Counts:
        return cls(np.zeros((channels, values), np.int64))

    def take(self, block: Array) -> None:
        for channel, counts in enumerate(self.parts):
            counts[...] += np.bincount(block[..., channel].ravel(), minlength=len(counts))


class UpperKeys(_Counted):
    """Counts of the upper 16 bits of keys; a row is a channel."""

    @classmethod
    def of(cls, channels: int) -> UpperKeys:
        return cls(np.zeros((channels, KEYS), np.int64))

    def take(self, block: Array) -> None:
        for channel, counts in enumerate(self.parts):
            counts[...] += np.bincount(_keys(block[..., channel]) >> 16, minlength=KEYS)


@dataclass(frozen=True, slots=True)
class LowerKeys(_Counted):
    """Counts of the lower 16 bits of keys; a row is a channel and upper bits that are ``asked`` for."""

    asked: tuple[tuple[int, int], ...]
    per_channel: bool

    @classmethod
    def of(cls, asked: tuple[tuple[int, int], ...], *, per_channel: bool) -> LowerKeys:
        return cls(np.zeros((len(asked), KEYS), np.int64), asked, per_channel)

    def take(self, block: Array) -> None:
        for counts, (channel, upper) in zip(self.parts, self.asked, strict=True):
            keys = _keys(block[..., channel] if self.per_channel else block)
            counts[...] += np.bincount(keys[keys >> 16 == upper] & 0xFFFF, minlength=KEYS)


@dataclass(slots=True)
class Moments:
    """Mean and sum of squared distances from it, (C,) float64 both, of ``count`` pixels."""

    ordered: ClassVar[bool] = True

    mean: NDArray[np.float64]
    spread: NDArray[np.float64]
    count: int = 0

    @classmethod
    def of(cls, channels: int) -> Moments:
        return cls(np.zeros(channels), np.zeros(channels))

    def apart(self) -> BlockMoments:
        return BlockMoments([], len(self.mean))

    def take(self, block: Array) -> None:
        if len(block):
            self._add(*_moments(block))

    def merge(self, parts: Array) -> None:
        for count, *numbers in parts:
            channels = len(self.mean)
            self._add(int(count), np.array(numbers[:channels]), np.array(numbers[channels:]))

    def _add(self, count: int, mean: NDArray[np.float64], spread: NDArray[np.float64]) -> None:
        delta, total = mean - self.mean, self.count + count
        self.spread += spread + delta**2 * self.count * count / total
        self.mean += delta * count / total
        self.count = total


@dataclass(frozen=True, slots=True)
class BlockMoments:
    """Moments of each block: ``parts`` (blocks, 1 + 2 C), float64: pixels, means, spreads."""

    blocks: list[Array]
    channels: int

    def take(self, block: Array) -> None:
        if len(block):
            count, mean, spread = _moments(block)
            self.blocks.append(np.concatenate([[count], mean, spread]))

    @property
    def parts(self) -> Array:
        return np.array(self.blocks, np.float64).reshape(-1, 1 + 2 * self.channels)


def _moments(block: Array) -> tuple[int, NDArray[np.float64], NDArray[np.float64]]:
    samples = block.reshape(-1, block.shape[-1]).astype(np.float64)
    mean = samples.mean(0)
    return len(samples), mean, ((samples - mean) ** 2).sum(0)


def _of_counts(counts: Array, wanted: ImageStatistics) -> Normalizers:
    """Return normalisers from ``counts`` (C, number of values) of each value."""
    if not wanted.per_channel:
        counts = np.broadcast_to(counts.sum(0), counts.shape)
    values = np.arange(counts.shape[1], dtype=np.float64)
    total = counts.sum(1)
    if wanted.kind == "zscore":
        mean = (counts * values).sum(1) / total
        variance = (counts * (values - mean[:, None]) ** 2).sum(1) / total
        return Normalizers(offset=mean, scale=np.sqrt(variance) + wanted.epsilon)
    upto = counts.cumsum(1)

    def at(channel: int, rank: int) -> float:
        return float(np.searchsorted(upto[channel], rank, side="right"))

    return _of_percentiles(wanted, total, at)


def _of_moments(moments: Moments, wanted: ImageStatistics) -> Normalizers:
    mean, spread, count = moments.mean, moments.spread, moments.count
    if not wanted.per_channel:
        common = mean.mean()
        spread = np.full_like(spread, (spread + count * (mean - common) ** 2).mean())
        mean = np.full_like(mean, common)
    return Normalizers(offset=mean, scale=np.sqrt(spread / count) + wanted.epsilon)


def _of_keys(high: Array, lower: LowerKeys, wanted: ImageStatistics) -> Normalizers:
    total, upto = high.sum(1), high.cumsum(1)
    low = dict(zip(lower.asked, lower.parts, strict=True))

    def at(channel: int, rank: int) -> float:
        upper = int(np.searchsorted(upto[channel], rank, side="right"))
        before = int(upto[channel, upper] - high[channel, upper])
        found = int(np.searchsorted(low[channel, upper].cumsum(), rank - before, side="right"))
        return _sample(upper << 16 | found)

    return _of_percentiles(wanted, total, at)


def _asked_keys(high: Array, wanted: ImageStatistics) -> tuple[tuple[int, int], ...]:
    """Return the channels and upper bits of keys that hold the samples next to the percentiles."""
    total, upto = high.sum(1), high.cumsum(1)
    return tuple(
        sorted(
            {
                (channel, int(np.searchsorted(upto[channel], rank, side="right")))
                for channel in range(len(high))
                for share in (wanted.low, wanted.high)
                for rank in _ranks(int(total[channel]), share)
            }
        )
    )


def _of_percentiles(wanted: ImageStatistics, total: NDArray[np.int64], at: Callable[[int, int], float]) -> Normalizers:
    """Return ``at(channel, rank)``: the sample that has ``rank`` smaller ones before it in sorted order."""
    channels = range(len(total))
    low, high = (
        np.array([_interpolated(int(total[channel]), share, partial(at, channel)) for channel in channels], np.float64)
        for share in (wanted.low, wanted.high)
    )
    return Normalizers(offset=low, scale=high - low + wanted.epsilon)


def _interpolated(total: int, percent: float, at: Callable[[int], float]) -> float:
    """Interpolate as ``numpy.percentile`` does by default, linearly."""
    position = percent / 100 * (total - 1)
    rank = int(position)
    first = at(rank)
    share = position - rank
    return first if share == 0 else first + (at(rank + 1) - first) * share


def _ranks(total: int, percent: float) -> list[int]:
    rank = int(percent / 100 * (total - 1))
    return [rank, min(rank + 1, total - 1)]


def _keys(samples: Array) -> NDArray[np.uint32]:
    """Return unsigned integers that sort as the float32 samples do."""
    bits = np.ascontiguousarray(samples.ravel(), np.float32).view(np.uint32)
    return np.where(bits >> 31, ~bits, bits | 0x80000000)


def _sample(key: int) -> float:
    bits = key & 0x7FFFFFFF if key >> 31 else ~key & 0xFFFFFFFF
    return float(np.array(bits, np.uint32).view(np.float32))


def _check_data(pixels: int) -> None:
    if not pixels:
        raise SourceError(
            "every pixel of the image is nodata, so it has no mean and no percentiles; give another value with --nodata"
        )
