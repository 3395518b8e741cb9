"""Read an image that is stored in chunks, whatever stores them: each is decoded once, and kept while it is needed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from exactile.errors import SourceError
from exactile.geometry import Box
from exactile.sources.channel_choice import ChannelCopy
from exactile.sources.chunks.cache import ChunkCache, ChunkKey
from exactile.sources.chunks.decode_pool import DecodePool
from exactile.sources.chunks.grid import ChunkGrid
from exactile.sources.chunks.schedule import ChunkSchedule, RecentFirst, SweepSchedule
from exactile.sources.damage import CorruptFilling
from exactile.sources.positional_file import DiskError
from exactile.sources.protocol import ReadCount, ReadPlan
from exactile.sources.sample_types import InexactSampleError

UNPLANNED_CACHE_BYTES = 64 << 20
"""Bytes of decoded chunks to keep, the most recent first, while no plan was announced."""

MOST_CHUNK_BYTES = 2 << 30
"""A chunk that decodes to more is refused: no writer produces it, but a damaged header may."""


Inside = tuple[slice, slice]
"""Rows and columns of a chunk."""


class UndecodableError(Exception):
    """A chunk whose stored bytes cannot be decoded."""


class ChunkReader(Protocol):
    """Fills arrays with pixels of an image."""

    def cache_bytes(self, plan: ReadPlan) -> int: ...

    def decoding_bytes(self, plan: ReadPlan) -> int: ...

    def prepare(self, plan: ReadPlan, *, cache_bytes: int) -> None: ...

    def read(self, box: Box, out: NDArray[Any]) -> None: ...

    def count(self) -> ReadCount: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkForm:
    """How an image is cut into chunks: planes of ``samples`` samples for each pixel, each plane in chunks of ``grid``.

    ``copies[i]`` takes the wanted channels from plane i. An empty chunk has ``fill`` everywhere. ``decoding_bytes`` is
    what a chunk needs while it is decoded, where that is more than its pixels.
    """

    grid: ChunkGrid
    copies: tuple[ChannelCopy, ...]
    samples: int
    dtype: np.dtype[Any]
    fill: float
    decoding_bytes: int = 0

    @property
    def chunk_bytes(self) -> int:
        """Bytes of one whole decoded chunk."""
        return self.grid.chunk_rows * self.grid.chunk_columns * self.samples * self.dtype.itemsize

    @property
    def peak_bytes(self) -> int:
        """Bytes that a chunk takes while it is decoded."""
        return max(self.chunk_bytes, self.decoding_bytes)

    def parts(self, box: Box, out: NDArray[Any]) -> Iterator[tuple[ChunkKey, Inside, NDArray[Any]]]:
        """Yield every chunk that ``box`` touches, row by row: its key, the wanted pixels of the chunk, and their
        target.
        """
        rows, columns = self.grid.cut(box)
        planes = range(len(self.copies))
        for row in rows:
            for column in columns:
                inside, target = (row.inside, column.inside), out[row.of_box, column.of_box]
                for plane in planes:
                    yield (plane, row.number, column.number), inside, target


class ChunkAccess(Protocol):
    """Access to stored chunks. Its methods are called from several threads."""

    @property
    def form(self) -> ChunkForm: ...

    @property
    def pool(self) -> DecodePool: ...

    @property
    def chunks_stored(self) -> int: ...

    def decode(self, key: ChunkKey) -> NDArray[Any] | None:
        """Return the chunk's pixels, (H, W, samples), at least those within the image; None if it is empty."""

    @property
    def filling(self) -> CorruptFilling:
        """What to do with a chunk that cannot be decoded."""

    def failure(self, key: ChunkKey, reason: object) -> SourceError:
        """Return the error for a chunk that cannot be read, whatever it holds."""

    def damage(self, key: ChunkKey, reason: object) -> SourceError:
        """Return the error for a chunk that cannot be decoded."""


class _Part(NamedTuple):
    """The part of one chunk that a read needs."""

    key: ChunkKey
    inside: Inside
    out: NDArray[Any]
    next_use: int | None
    held: NDArray[Any] | None


class DecodedChunkReader:
    """Decode whole chunks, in several threads, and keep them while the plan still needs them.

    ``unplanned_cache_bytes`` of them, the most recent first, are kept while no plan was announced. If the granted bytes
    are too few for all threads, fewer decode.
    """

    def __init__(self, access: ChunkAccess, *, unplanned_cache_bytes: int = UNPLANNED_CACHE_BYTES) -> None:
        self._access = access
        self._form = access.form
        self._grid = access.form.grid
        self._cache = ChunkCache(unplanned_cache_bytes)
        self._schedule: ChunkSchedule = RecentFirst(self._grid)
        self._lock = threading.Lock()
        self._decoded = 0
        self._workers = self._access.pool.workers

    @property
    def grid(self) -> ChunkGrid:
        return self._grid

    def cache_bytes(self, plan: ReadPlan) -> int:
        schedule = SweepSchedule(self._grid, plan)
        return self._kept_bytes(schedule) + self._under_way(schedule) * self._beside_bytes(schedule)

    def decoding_bytes(self, plan: ReadPlan) -> int:
        """Return the bytes for one chunk at a time."""
        return self._form.peak_bytes if plan.rows and plan.columns else 0

    def prepare(self, plan: ReadPlan, *, cache_bytes: int) -> None:
        schedule = SweepSchedule(self._grid, plan)
        under_way, kept_bytes = self._under_way(schedule), self._kept_bytes(schedule)
        if cache_bytes >= kept_bytes + under_way * self._beside_bytes(schedule):
            self._workers, limit_bytes = max(1, under_way), kept_bytes
        else:
            self._workers = max(1, min(under_way, cache_bytes // self._form.peak_bytes))
            limit_bytes = max(0, cache_bytes - self._workers * self._form.peak_bytes)
        self._cache.clear(limit_bytes)
        self._schedule = schedule
        self._decoded = 0

    def read(self, box: Box, out: NDArray[Any]) -> None:
        rows, columns = self._grid.cells(box)
        next_uses = self._schedule.advance(box)
        wanted = list(self._form.parts(box, out))
        found = self._cache.pin([key for key, _, _ in wanted])
        parts = [
            _Part(key, inside, target, next_uses[key[1] - rows.start][key[2] - columns.start], chunk)
            for (key, inside, target), chunk in zip(wanted, found, strict=True)
        ]
        held = [part for part in parts if part.held is not None]
        missing = [part for part in parts if part.held is None]
        try:
            # Decoding takes longest, so it begins first.
            self._access.pool.for_each(self._serve, missing + held, most=self._workers)
        finally:
            self._cache.unpin([(part.key, part.next_use) for part in held])

    def release(self) -> None:
        """Drop the kept chunks."""
        self._cache.clear(0)

    def count(self) -> ReadCount:
        return ReadCount(chunks_decoded=self._decoded, chunks_stored=self._access.chunks_stored)

    def _kept_bytes(self, schedule: SweepSchedule) -> int:
        """Return the most bytes of decoded chunks that are needed again, or are being used for the last time."""
        return schedule.peak_chunks() * len(self._form.copies) * self._form.chunk_bytes

    def _beside_bytes(self, schedule: SweepSchedule) -> int:
        """Return the further bytes of a chunk while it is decoded: its pixels are among the kept ones, if it is used
        again.
        """
        form = self._form
        return form.peak_bytes - (0 if schedule.has_chunks_used_once else form.chunk_bytes)

    def _under_way(self, schedule: SweepSchedule) -> int:
        """Return how many chunks are decoded at a time if there is memory for it."""
        return min(self._access.pool.workers, schedule.most_chunks_of_a_box() * len(self._form.copies))

    def _serve(self, part: _Part) -> None:
        copy = self._form.copies[part.key[0]]
        try:
            chunk = self._decode(part.key) if part.held is None else part.held
        except UndecodableError as error:
            self._fill(part, error)
            return
        if chunk is None:
            copy.fill(self._form.fill, part.out)
            return
        try:
            copy.copy(chunk[part.inside], part.out)
        except InexactSampleError as error:
            raise self._access.failure(part.key, error.moved(*self._first_pixel(part))) from error
        if part.held is None and part.next_use is not None:
            self._cache.put(part.key, chunk, part.next_use)

    def _first_pixel(self, part: _Part) -> tuple[int, int]:
        """Return the first pixel of a part in the image."""
        origin = self._grid.chunk_box(part.key[1], part.key[2])
        return origin.y.start + part.inside[0].start, origin.x.start + part.inside[1].start

    def _fill(self, part: _Part, error: UndecodableError) -> None:
        """Fill the part of a chunk that cannot be decoded, or fail, as requested."""
        filling = self._access.filling
        if not filling.fills:
            raise self._access.damage(part.key, error) from error
        if not filling.knows(part.key):
            filling.note(part.key, self._grid.chunk_box(part.key[1], part.key[2]), str(error))
        self._form.copies[part.key[0]].fill(filling.value, part.out)

    def _decode(self, key: ChunkKey) -> NDArray[Any] | None:
        """Return the chunk's pixels, (H, W, samples); None if it is empty. Raises UndecodableError."""
        if self._access.filling.knows(key):
            raise UndecodableError("it was tried before")
        try:
            chunk = self._access.decode(key)
        except SourceError:
            raise
        # Neither depends on the content of the chunk, so neither is filled.
        except (DiskError, MemoryError) as error:
            raise self._access.failure(key, str(error) or "there is not enough memory for it") from error
        # Each codec has its own errors; whatever it is, this chunk cannot be read.
        except Exception as error:
            raise UndecodableError(str(error) or type(error).__name__) from error
        if chunk is None:
            return None
        self._check_decoded(key, chunk)
        with self._lock:
            self._decoded += 1
        return chunk

    def _check_decoded(self, key: ChunkKey, chunk: NDArray[Any]) -> None:
        form = self._form
        rows, columns = self._grid.chunk_shape(key[1], key[2])
        height, width, samples = chunk.shape
        if height < rows or width < columns or samples != form.samples or chunk.dtype != form.dtype:
            expected = f"{rows} x {columns} x {form.samples} {form.dtype.name}"
            raise UndecodableError(f"it decodes to {chunk.shape} {chunk.dtype.name} instead of {expected}")
