"""A small picture of an image: means of blocks of pixels, of the smallest level that is large enough."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.geometry import Box, Span
from exactile.sources.description import SeriesDescription
from exactile.sources.metadata import metadata_of
from exactile.sources.protocol import ReadPlan, Source, least_reading_bytes
from exactile.sources.sample_types import stored_type
from exactile.sources.sweep import sweep_plan

LONGEST_PX = 512
"""The longer side of a thumbnail."""

MOST_READ_PX = 1 << 30
"""Most pixels to read; for larger images, rows in the middle of each block stand for the block."""

BLOCK_BYTES = 4 << 20
"""Bytes of the image that are read at a time."""

SPARE_BYTES = 64 << 20
"""Most bytes of decoded chunks to keep, besides the memory for decoding."""

LOW, HIGH = 1, 99
"""Percentiles that become black and white."""

_WHITE = 255
_TINY = 1e-30
"""The divisor if all means are equal."""

Progress = Callable[[int, int], None]
"""Called with the pixels done and their total."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thumbnail:
    """``pixels``: (h, w, 3) uint8. ``said`` are notes on what they show."""

    pixels: NDArray[np.uint8]
    said: tuple[str, ...]


def thumbnail_level(series: SeriesDescription) -> int:
    """Return the number of the smallest level that shows all of the image with LONGEST_PX pixels or more; 0 if none
    does.

    Levels with fewer planes than level 0, which show something else at the same place along Z, are left out.
    """
    large = [
        level
        for level in series.levels
        if level.reduction
        and max(level.height, level.width) >= LONGEST_PX
        and all(series.length(axis, level) == series.length(axis) for axis in "ZT")
    ]
    return min(large, key=lambda level: level.height * level.width).level if large else 0


def shown_channels(channels: Sequence[int], alpha: int | None) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Return which of ``channels`` a thumbnail shows, one or three, and a note if these are not all but alpha."""
    seen = tuple(channel for channel in channels if channel != alpha) or tuple(channels)
    if len(seen) in (1, 3):
        return seen, ()
    if len(seen) == 2:
        return seen[:1], (f"shows channel {seen[0]}; --channels shows others",)
    return seen[:3], (f"channels {seen[0]}, {seen[1]}, {seen[2]} are red, green and blue; --channels shows others",)


def make_thumbnail(
    source: Source,
    *,
    together: bool,
    progress: Progress = lambda _done, _total: None,
    most_read_px: int = MOST_READ_PX,
) -> Thumbnail:
    """Return a picture of ``source``, of one channel (grey) or three (red, green and blue), LONGEST_PX pixels long.

    Reads about BLOCK_BYTES at a time. Samples stored as uint8 stay as they are; others are stretched between the 1st
    and the 99th percentile of the picture's means, those of all channels ``together`` or of each. Where there is no
    data, it is black.

    Raises SourceError for chunks that cannot be decoded.
    """
    shape = thumbnail_shape(source.height, source.width)
    plan, told = _plan(source, shape, most_read_px)
    means = _block_means(source, plan, shape, progress)
    if stored_type(source) == np.uint8:
        pixels, scaling = np.nan_to_num(means).round().astype(np.uint8), "samples are as stored"
    else:
        pixels, scaling = _stretched(means, together=together)
    return Thumbnail(pixels=np.broadcast_to(pixels, (*shape, 3)), said=(told, scaling))


def thumbnail_shape(height: int, width: int) -> tuple[int, int]:
    """Return height and width of the picture of an image; no image is enlarged."""
    longest = max(height, width)
    if longest <= LONGEST_PX:
        return height, width
    return tuple(max(1, round(side * LONGEST_PX / longest)) for side in (height, width))  # type: ignore[return-value]


def edges(size: int, parts: int) -> NDArray[np.int64]:
    """Return the edges of ``parts`` blocks of ``size`` pixels, as equal as possible: (parts + 1,)."""
    return np.arange(parts + 1, dtype=np.int64) * size // parts


def _plan(source: Source, shape: tuple[int, int], most_px: int) -> tuple[ReadPlan, str]:
    """Return what is read, and a note on how pixels of the picture are computed."""
    plan = sweep_plan(source, BLOCK_BYTES)
    if source.height * source.width <= most_px:
        return plan, "pixels as they are" if shape == _size(source) else "means of blocks of pixels"
    # Whole rows: they are read in pieces as large as the sweep's, which several threads decode.
    rows = max(1, most_px // (shape[0] * source.width))
    width = max(1, BLOCK_BYTES // (rows * source.channels * source.dtype.itemsize))
    columns = [Span(start, min(start + width, source.width)) for start in range(0, source.width, width)]
    told = f"means of {rows} row{'s' if rows > 1 else ''} in the middle of each block of pixels"
    return ReadPlan(rows=_middles(source.height, shape[0], rows), columns=columns), told


def _size(source: Source) -> tuple[int, int]:
    return source.height, source.width


def _middles(size: int, parts: int, side: int) -> list[Span]:
    cut = edges(size, parts)
    spans = []
    for start, stop in zip(cut[:-1].tolist(), cut[1:].tolist(), strict=True):
        length = min(side, stop - start)
        first = start + (stop - start - length) // 2
        spans.append(Span(first, first + length))
    return spans


def _block_means(source: Source, plan: ReadPlan, shape: tuple[int, int], progress: Progress) -> NDArray[np.float64]:
    """Return (h, w, C): means of samples with data; NaN if there are none."""
    spare = least_reading_bytes(source, plan) + SPARE_BYTES
    source.prepare(plan, cache_bytes=min(source.cache_bytes(plan), spare))
    nodata = metadata_of(source).nodata
    sums, counts = np.zeros((2, *shape, source.channels))
    down, across = edges(source.height, shape[0]), edges(source.width, shape[1])
    total, done = sum(span.length for span in plan.rows) * sum(span.length for span in plan.columns), 0
    for rows in plan.rows:
        for columns in plan.columns:
            block = np.empty((rows.length, columns.length, source.channels), source.dtype)
            source.read(Box(rows, columns), block)
            _add(block, (_cells(rows, down), _cells(columns, across)), sums, counts, nodata)
            done += rows.length * columns.length
            progress(done, total)
    with np.errstate(invalid="ignore"):
        return sums / counts


Cells = tuple[slice, NDArray[np.int64]]
"""Blocks that a span touches, and the start of each in the span."""


def _cells(span: Span, cut: NDArray[np.int64]) -> Cells:
    first = int(np.searchsorted(cut, span.start, side="right")) - 1
    stop = int(np.searchsorted(cut, span.stop, side="left"))
    return slice(first, stop), np.maximum(cut[first:stop] - span.start, 0)


def _add(
    block: NDArray[Any],
    cells: tuple[Cells, Cells],
    sums: NDArray[np.float64],
    counts: NDArray[np.float64],
    nodata: float | None,
) -> None:
    """Add the samples of ``block`` (H, W, C) with data, and their number, to those of its cells."""
    place = cells[0][0], cells[1][0]
    starts = cells[0][1], cells[1][1]
    is_data = _is_data(block, nodata)
    if is_data is not None:
        sums[place] += _summed(np.where(is_data, block, 0), starts)
        counts[place] += _summed(is_data.astype(np.uint8), starts)
        return
    sums[place] += _summed(block, starts)
    heights, widths = (np.diff(np.append(one, size)) for one, size in zip(starts, block.shape[:2], strict=True))
    counts[place] += (heights[:, None] * widths)[..., None]


def _is_data(block: NDArray[Any], nodata: float | None) -> NDArray[np.bool_] | None:
    """Return a mask of samples with data; None if all have."""
    if block.dtype.kind != "f" and nodata is None:
        return None
    found: NDArray[np.bool_] = np.isfinite(block)
    if nodata is not None:
        found = found & (block != nodata).any(axis=2, keepdims=True)
    return found


def _summed(samples: NDArray[Any], starts: tuple[NDArray[np.int64], NDArray[np.int64]]) -> NDArray[np.float64]:
    """Return sums of the blocks that begin at ``starts``, along rows and columns."""
    # Sums of whole rows are by far the fastest, and 32 bits hold them.
    narrow = samples.dtype.itemsize == 1 or (samples.dtype.itemsize == 2 and len(samples) <= 1 << 16)
    kind = np.float64 if samples.dtype.kind == "f" else np.uint32 if narrow else np.uint64
    stops = np.append(starts[0][1:], len(samples))
    rows = np.stack([samples[a:b].sum(axis=0, dtype=kind) for a, b in zip(starts[0], stops, strict=True)])
    return np.add.reduceat(rows, starts[1], axis=1, dtype=np.float64)


def _stretched(means: NDArray[np.float64], *, together: bool) -> tuple[NDArray[np.uint8], str]:
    """Return the means as uint8, and a note on the conversion."""
    parts = [means] if together else [means[..., channel : channel + 1] for channel in range(means.shape[2])]
    pairs = [_ends(part) for part in parts]
    pixels = [
        np.nan_to_num(np.clip((part - low) / max(high - low, _TINY), 0, 1) * _WHITE).round().astype(np.uint8)
        for part, (low, high) in zip(parts, pairs, strict=True)
    ]
    said = "; ".join(f"{low:.6g} is black and {high:.6g} white" for low, high in pairs)
    return np.concatenate(pixels, axis=2), f"{said} (percentiles {LOW} and {HIGH} of the picture)"


def _ends(means: NDArray[np.float64]) -> tuple[float, float]:
    """Return the values of black and white."""
    there = means[~np.isnan(means)]
    low, high = np.percentile(there, [LOW, HIGH]) if there.size else (0.0, 1.0)
    return float(low), float(high)
