"""Reading the chunks of a TIFF image: plain samples row by row, others decoded once and kept."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from exactile.errors import SourceError
from exactile.geometry import Box
from exactile.sources.channel_choice import ChannelCopy
from exactile.sources.chunk_cache import ChunkCache, ChunkKey
from exactile.sources.chunk_schedule import ChunkSchedule, RecentFirst, SweepSchedule
from exactile.sources.damage import CorruptFilling
from exactile.sources.decode_pool import DecodePool
from exactile.sources.positional_file import DamagedDataError, DiskError, PositionalFile
from exactile.sources.protocol import ReadCount, ReadPlan
from exactile.sources.raw_rows import RawRows
from exactile.sources.tiff_layout import TiffLayout

UNPLANNED_CACHE_BYTES = 64 << 20
"""Decoded chunks kept, the most recent first, while no plan was announced."""


class UndecodableError(Exception):
    """A chunk whose stored bytes are no pixels."""


class ChunkReader(Protocol):
    """Fills arrays with pixels of a layout."""

    def cache_bytes(self, plan: ReadPlan) -> int: ...

    def prepare(self, plan: ReadPlan, *, cache_bytes: int) -> None: ...

    def read(self, box: Box, out: NDArray[Any]) -> None: ...

    def count(self) -> ReadCount: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """The piece of one chunk that a read wants. ``wanted`` is in image pixels."""

    key: ChunkKey
    wanted: Box
    out: NDArray[Any]
    next_use: int | None = None
    held: NDArray[Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkAccess:
    """What both readers need: the file, its layout, and ``copies[i]`` to take the channels from plane i."""

    file: PositionalFile
    layout: TiffLayout
    copies: tuple[ChannelCopy, ...]
    pool: DecodePool
    filling: CorruptFilling

    def parts(self, box: Box, out: NDArray[Any]) -> Iterator[tuple[ChunkKey, Box, NDArray[Any]]]:
        """Every chunk that ``box`` touches, row by row: its key, the wanted pixels, where they go."""
        rows, columns = self.layout.grid.cells(box)
        for row in rows:
            for column in columns:
                wanted = self.layout.grid.chunk_box(row, column).intersect(box)
                target = out[wanted.slices(box)]
                for plane in range(len(self.layout.planes)):
                    yield (plane, row, column), wanted, target

    def stored(self, key: ChunkKey) -> tuple[int, int, int]:
        """Offset, size in bytes and segment index of a chunk; size 0 when it is empty."""
        number, row, column = key
        plane = self.layout.planes[number]
        index = row * self.layout.grid.columns + column
        return int(plane.offsets[index]), int(plane.sizes_bytes[index]), plane.first_segment + index

    def failure(self, key: ChunkKey, reason: object) -> SourceError:
        where = self.layout.describe_chunk(*key)
        return SourceError(f"{self.file.name}: {where} cannot be read: {reason}")

    def damage(self, key: ChunkKey, reason: object) -> SourceError:
        return SourceError(f"{self.failure(key, reason)}; the file is damaged")


class RawChunkReader:
    """Chunks of plain samples: the wanted rows are read where they lie, nothing is kept."""

    def __init__(self, access: ChunkAccess) -> None:
        self._access = access

    def cache_bytes(self, plan: ReadPlan) -> int:  # noqa: ARG002 - nothing is decoded, so nothing is kept
        return 0

    def prepare(self, plan: ReadPlan, *, cache_bytes: int) -> None:
        """Nothing to prepare."""

    def read(self, box: Box, out: NDArray[Any]) -> None:
        self._access.pool.for_each(self._copy, list(self._access.parts(box, out)))

    def count(self) -> ReadCount:
        return ReadCount(chunks_decoded=0, chunks_stored=0)

    def _copy(self, part: tuple[ChunkKey, Box, NDArray[Any]]) -> None:
        key, wanted, out = part
        access, layout = self._access, self._access.layout
        offset, size_bytes, _ = access.stored(key)
        copy = access.copies[key[0]]
        if size_bytes == 0:
            copy.fill(layout.fill, out)
            return
        origin = layout.grid.chunk_box(key[1], key[2])
        rows = RawRows(
            offset=offset, width=layout.grid.chunk_columns, samples=layout.samples, dtype=layout.stored_dtype
        )
        try:
            rows.copy(access.file, wanted.shift(-origin.y.start, -origin.x.start), copy, out)
        except DamagedDataError as error:
            raise access.damage(key, error) from error


class DecodedChunkReader:
    """Chunks that are decoded as a whole, in several threads, and kept while the plan still needs them."""

    def __init__(self, access: ChunkAccess) -> None:
        self._access = access
        self._grid = access.layout.grid
        self._cache = ChunkCache(UNPLANNED_CACHE_BYTES)
        self._schedule: ChunkSchedule = RecentFirst(self._grid)
        self._lock = threading.Lock()
        self._decoded = 0

    def cache_bytes(self, plan: ReadPlan) -> int:
        schedule = SweepSchedule(self._grid, plan)
        chunks = schedule.peak_chunks() * len(self._access.layout.planes) + self._under_way(schedule)
        return chunks * self._access.layout.chunk_bytes

    def prepare(self, plan: ReadPlan, *, cache_bytes: int) -> None:
        schedule = SweepSchedule(self._grid, plan)
        under_way_bytes = self._under_way(schedule) * self._access.layout.chunk_bytes
        self._cache.clear(max(0, cache_bytes - under_way_bytes))
        self._schedule = schedule
        self._decoded = 0

    def read(self, box: Box, out: NDArray[Any]) -> None:
        rows, columns = self._grid.cells(box)
        next_uses = self._schedule.advance(box)
        missing: list[_Part] = []
        held: list[_Part] = []
        for key, wanted, target in self._access.parts(box, out):
            next_use = next_uses[key[1] - rows.start][key[2] - columns.start]
            chunk = self._cache.pin(key)
            part = _Part(key=key, wanted=wanted, out=target, next_use=next_use, held=chunk)
            (missing if chunk is None else held).append(part)
        try:
            # Decoding takes longest, so it begins first.
            self._access.pool.for_each(self._serve, missing + held)
        finally:
            for part in held:
                self._cache.unpin(part.key, part.next_use)

    def count(self) -> ReadCount:
        stored = sum(int((plane.sizes_bytes > 0).sum()) for plane in self._access.layout.planes)
        return ReadCount(chunks_decoded=self._decoded, chunks_stored=stored)

    def _under_way(self, schedule: SweepSchedule) -> int:
        """Chunks that are being decoded at a time."""
        return min(self._access.pool.workers, schedule.most_chunks_of_a_box() * len(self._access.layout.planes))

    def _serve(self, part: _Part) -> None:
        copy = self._access.copies[part.key[0]]
        try:
            chunk = self._decode(part.key) if part.held is None else part.held
        except UndecodableError as error:
            self._fill(part, error)
            return
        if chunk is None:
            copy.fill(self._access.layout.fill, part.out)
            return
        origin = self._grid.chunk_box(part.key[1], part.key[2])
        copy.copy(chunk[part.wanted.slices(origin)], part.out)
        if part.held is None and part.next_use is not None:
            self._cache.put(part.key, chunk, part.next_use)

    def _fill(self, part: _Part, error: UndecodableError) -> None:
        """Fill the part of a chunk that cannot be decoded, or fail, as was asked for."""
        access, filling = self._access, self._access.filling
        if not filling.fills:
            raise access.damage(part.key, error) from error
        if not filling.knows(part.key):
            filling.note(part.key, self._grid.chunk_box(part.key[1], part.key[2]), str(error))
        access.copies[part.key[0]].fill(filling.value, part.out)

    def _decode(self, key: ChunkKey) -> NDArray[Any] | None:
        """The chunk's pixels, (H, W, samples); None when it is empty. Raises UndecodableError."""
        access = self._access
        if access.filling.knows(key):
            raise UndecodableError("it was tried before")
        offset, size_bytes, segment = access.stored(key)
        if size_bytes == 0:
            return None
        try:
            data = access.file.read(offset, size_bytes)
            chunk = access.layout.planes[key[0]].decode(data, segment)
        except SourceError:
            raise
        # Neither is a matter of what the chunk holds, so neither is filled.
        except (DiskError, MemoryError) as error:
            raise access.failure(key, str(error) or "there is not enough memory for it") from error
        # Each codec has errors of its own; whatever it is, this chunk cannot be read.
        except Exception as error:
            raise UndecodableError(str(error) or type(error).__name__) from error
        self._check_decoded(key, chunk)
        with self._lock:
            self._decoded += 1
        return chunk

    def _check_decoded(self, key: ChunkKey, chunk: NDArray[Any]) -> None:
        layout = self._access.layout
        rows, columns = self._grid.chunk_box(key[1], key[2]).shape
        height, width, samples = chunk.shape
        if height < rows or width < columns or samples != layout.samples or chunk.dtype != layout.stored_dtype:
            expected = f"{rows} x {columns} x {layout.samples} {layout.stored_dtype.name}"
            raise UndecodableError(f"it decodes to {chunk.shape} {chunk.dtype.name} instead of {expected}")
