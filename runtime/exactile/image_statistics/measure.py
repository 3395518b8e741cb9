"""Normalisation by statistics of the whole image: one or two streaming passes, in bounded memory, exact."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.contract import ImageInput, ImageStatistics
from exactile.errors import OptionError, SourceError
from exactile.geometry import Box
from exactile.image_statistics.tallies import Measuring, Normalizers, Tally, TallyPart
from exactile.sources.nodata import ByValue, NodataRule
from exactile.sources.protocol import ReadPlan, Source, least_reading_bytes
from exactile.sources.sweep import sweep_plan

__all__ = ["Normalizers", "block_rows", "constants_of", "measure", "measuring_bytes", "passes", "take_blocks"]

BLOCK_BYTES = 1 << 20
"""Bytes of samples that are read at a time."""

SCRATCH_BYTES = 12 << 20
"""Bytes for counting and merging a block: 8 bytes a sample, a few times."""

CACHE_BYTES = 256 << 20

Array = NDArray[Any]
Progress = Callable[[int], None]
"""Called with the pixels of each block that was read."""


def measure(
    source: Source,
    wanted: ImageStatistics,
    progress: Progress = lambda _pixels: None,
    *,
    cache_bytes: int = CACHE_BYTES,
    nodata: float | NodataRule | None = None,
) -> Normalizers:
    """Return offset and scale of the whole image, as numpy would compute them of all its samples at once.

    Pixels that are ``nodata`` in every channel, or by that rule, are left out. At most ``cache_bytes`` of decoded
    chunks are kept. Raises SourceError if samples are not finite numbers, or no pixel has data.
    """
    rule = ByValue(nodata) if isinstance(nodata, int | float) else nodata
    measuring = Measuring(source.dtype, source.channels, wanted)
    for tally in measuring.tallies():
        take_blocks(source, tally, progress=progress, cache_bytes=cache_bytes, rule=rule)
    return measuring.normalizers()


def take_blocks(
    source: Source,
    tally: Tally | TallyPart,
    rows: range | None = None,
    *,
    progress: Progress = lambda _pixels: None,
    cache_bytes: int = CACHE_BYTES,
    rule: NodataRule | None = None,
) -> None:
    """Pass the blocks of the image, or those of some ``rows`` of blocks, to ``tally``. Raises SourceError."""
    for block in _blocks(source, progress, cache_bytes, rule, rows):
        tally.take(block)


def block_rows(source: Source) -> int:
    """Return the number of rows of blocks that ``measure`` reads."""
    return len(_plan(source).rows)


def measuring_bytes(source: Source) -> int:
    """Return the most bytes that ``measure`` takes besides the kept chunks."""
    return SCRATCH_BYTES + least_reading_bytes(source, _plan(source))


def passes(source: Source, wanted: ImageStatistics) -> int:
    """Return how often ``measure`` reads the image."""
    return 2 if source.dtype.kind == "f" and wanted.kind == "percentile" else 1


def _blocks(
    source: Source, progress: Progress, cache_bytes: int, rule: NodataRule | None, wanted: range | None
) -> Iterator[Array]:
    """Yield the whole image in blocks (rows, columns, C), each pixel once; without nodata (pixels, C)."""
    plan = _plan(source)
    if wanted is not None:
        plan = ReadPlan(rows=plan.rows[wanted.start : wanted.stop], columns=plan.columns)
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
    """Return the graph's inputs besides the image: (1, C, 1, 1) float32. Raises OptionError if they do not fit."""
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
