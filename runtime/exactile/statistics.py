"""Normalisation that needs the whole image first: one or two streaming passes, in bounded memory, exact.

Samples of 8 and 16 bits are counted by value; from the counts follow mean, deviation and every percentile. For
float32, mean and deviation are merged block by block (Chan, Golub & LeVeque 1983), and percentiles are found by the
upper and then the lower 16 bits of a key that sorts as the samples do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.contract import ImageInput, ImageStatistics
from exactile.errors import OptionError, SourceError
from exactile.geometry import Box
from exactile.nodata import ByValue, NodataRule
from exactile.sources.protocol import ReadPlan, Source, least_reading_bytes
from exactile.sources.sweep import sweep_plan

BLOCK_BYTES = 1 << 20
"""Of samples at a time."""

SCRATCH_BYTES = 12 << 20
"""What counting and merging a block takes: 8 bytes a sample, a few times."""

Array = NDArray[Any]
Blocks = Callable[[], Iterator[NDArray[Any]]]
Progress = Callable[[int], None]
"""Called with the pixels of each block that was read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalizers:
    """``(sample - offset) / scale`` for each channel; both (C,) float64."""

    offset: NDArray[np.float64]
    scale: NDArray[np.float64]


def measure(
    source: Source,
    wanted: ImageStatistics,
    progress: Progress = lambda _pixels: None,
    *,
    cache_bytes: int = 256 << 20,
    nodata: float | NodataRule | None = None,
) -> Normalizers:
    """Offset and scale of the whole image, as numpy would compute them of all its samples at once.

    Pixels that are ``nodata`` in every channel, or by that rule, are left out. At most ``cache_bytes`` of decoded
    chunks are kept.
    Raises SourceError where samples are not finite numbers, or no pixel has data.
    """
    rule = ByValue(nodata) if isinstance(nodata, int | float) else nodata
    blocks = partial(_blocks, source, progress, cache_bytes, rule)
    if source.dtype.kind == "u" and source.dtype.itemsize <= 2:
        counts = _count(source, blocks)
        if not wanted.per_channel:
            counts = np.broadcast_to(counts.sum(0), counts.shape)
        return _of_counts(counts, wanted)
    return _of_floats(source, wanted, blocks)


def measuring_bytes(source: Source) -> int:
    """What ``measure`` takes at most beside the chunks that it keeps."""
    return SCRATCH_BYTES + least_reading_bytes(source, _plan(source))


def passes(source: Source, wanted: ImageStatistics) -> int:
    """How often ``measure`` reads the image."""
    return 2 if source.dtype.kind == "f" and wanted.kind == "percentile" else 1


def _of_counts(counts: NDArray[np.int64], wanted: ImageStatistics) -> Normalizers:
    """``counts`` (C, number of values): how often each value occurs."""
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


def _of_percentiles(wanted: ImageStatistics, total: NDArray[np.int64], at: Callable[[int, int], float]) -> Normalizers:
    """``at(channel, rank)``: the sample that has ``rank`` smaller ones before it in sorted order."""
    channels = range(len(total))
    low, high = (
        np.array([_interpolated(int(total[channel]), share, partial(at, channel)) for channel in channels], np.float64)
        for share in (wanted.low, wanted.high)
    )
    return Normalizers(offset=low, scale=high - low + wanted.epsilon)


def _interpolated(total: int, percent: float, at: Callable[[int], float]) -> float:
    """As ``numpy.percentile`` with its default, linear interpolation."""
    position = percent / 100 * (total - 1)
    rank = int(position)
    first = at(rank)
    share = position - rank
    return first if share == 0 else first + (at(rank + 1) - first) * share


def _count(source: Source, blocks: Blocks) -> NDArray[np.int64]:
    bins = int(np.iinfo(source.dtype).max) + 1
    counts = np.zeros((source.channels, bins), np.int64)
    for block in blocks():
        for channel in range(source.channels):
            counts[channel] += np.bincount(block[..., channel].ravel(), minlength=bins)
    _check_data(int(counts[0].sum()))
    return counts


def _of_floats(source: Source, wanted: ImageStatistics, blocks: Blocks) -> Normalizers:
    if wanted.kind == "zscore":
        return _moments(source, wanted, blocks)
    high = np.zeros((source.channels, 1 << 16), np.int64)
    for block in blocks():
        for channel in range(source.channels):
            high[channel] += np.bincount(_keys(block[..., channel]) >> 16, minlength=1 << 16)
    _check_data(int(high[0].sum()))
    if not wanted.per_channel:
        high = np.broadcast_to(high.sum(0), high.shape)
    total, upto = high.sum(1), high.cumsum(1)
    asked = {
        (channel, int(np.searchsorted(upto[channel], rank, side="right")))
        for channel in range(source.channels)
        for share in (wanted.low, wanted.high)
        for rank in _ranks(int(total[channel]), share)
    }
    low = {key: np.zeros(1 << 16, np.int64) for key in sorted(asked)}
    for block in blocks():
        for channel, upper in low:
            keys = _keys(block[..., channel] if wanted.per_channel else block)
            low[channel, upper] += np.bincount(keys[keys >> 16 == upper] & 0xFFFF, minlength=1 << 16)

    def at(channel: int, rank: int) -> float:
        upper = int(np.searchsorted(upto[channel], rank, side="right"))
        before = int(upto[channel, upper] - high[channel, upper])
        lower = int(np.searchsorted(low[channel, upper].cumsum(), rank - before, side="right"))
        return _sample(upper << 16 | lower)

    return _of_percentiles(wanted, total, at)


def _ranks(total: int, percent: float) -> list[int]:
    rank = int(percent / 100 * (total - 1))
    return [rank, min(rank + 1, total - 1)]


def _moments(source: Source, wanted: ImageStatistics, blocks: Blocks) -> Normalizers:
    count = 0
    mean, spread = np.zeros(source.channels), np.zeros(source.channels)
    for block in blocks():
        if not len(block):
            continue
        samples = block.reshape(-1, source.channels).astype(np.float64)
        block_mean = samples.mean(0)
        delta, total = block_mean - mean, count + len(samples)
        spread += ((samples - block_mean) ** 2).sum(0) + delta**2 * count * len(samples) / total
        mean += delta * len(samples) / total
        count = total
    _check_data(count)
    if not wanted.per_channel:
        common = mean.mean()
        spread[:] = (spread + count * (mean - common) ** 2).mean()
        mean[:] = common
    return Normalizers(offset=mean, scale=np.sqrt(spread / count) + wanted.epsilon)


def _keys(samples: Array) -> NDArray[np.uint32]:
    """Unsigned integers that sort as the float32 samples do."""
    bits = np.ascontiguousarray(samples.ravel(), np.float32).view(np.uint32)
    return np.where(bits >> 31, ~bits, bits | 0x80000000)


def _sample(key: int) -> float:
    bits = key & 0x7FFFFFFF if key >> 31 else ~key & 0xFFFFFFFF
    return float(np.array(bits, np.uint32).view(np.float32))


def _check_data(pixels: int) -> None:
    if not pixels:
        raise SourceError(
            "every pixel of the image is nodata, so it has no mean and no percentiles; say another value with --nodata"
        )


def _blocks(source: Source, progress: Progress, cache_bytes: int, rule: NodataRule | None) -> Iterator[Array]:
    """The whole image in blocks (rows, columns, C), each pixel once; without nodata (pixels, C)."""
    plan = _plan(source)
    source.prepare(plan, cache_bytes=min(cache_bytes + least_reading_bytes(source, plan), source.cache_bytes(plan)))
    for rows in plan.rows:
        for columns in plan.columns:
            block = np.empty((rows.length, columns.length, source.channels), source.dtype)
            source.read(Box(rows, columns), block)
            if rule is not None:
                block = block[~rule.where(Box(rows, columns), block)]
            if block.dtype.kind == "f" and not np.isfinite(block).all():
                raise SourceError(
                    f"rows {rows.start} to {rows.stop} hold samples that are not finite numbers, "
                    "so the image has no mean and no percentiles; replace them, or normalise with fixed numbers"
                )
            yield block
            progress(rows.length * columns.length)


def _plan(source: Source) -> ReadPlan:
    return sweep_plan(source, BLOCK_BYTES)


def constants_of(image: ImageInput, normalizers: Normalizers | None) -> dict[str, NDArray[Any]]:
    """The graph's inputs beside the image: (1, C, 1, 1) float32. Raises OptionError where they do not fit."""
    wanted, channels = image.statistics, image.channels
    if wanted is None:
        if normalizers is not None:
            raise OptionError("this model normalises by fixed numbers; it takes no normalizers")
        return {}
    if normalizers is None:
        raise OptionError("this model normalises by statistics of the whole image; give normalizers")
    found = {wanted.offset_name: normalizers.offset, wanted.scale_name: normalizers.scale}
    if any(np.shape(values) != (channels,) for values in found.values()):
        raise OptionError(f"normalizers need one offset and one scale for each of {channels} channel(s)")
    return {name: np.ascontiguousarray(values, np.float32).reshape(1, -1, 1, 1) for name, values in found.items()}
