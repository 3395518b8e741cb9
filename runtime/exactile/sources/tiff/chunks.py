"""The chunks of a TIFF image: plain samples are read row by row, others are decoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from exactile.errors import SourceError
from exactile.geometry import Box, Span
from exactile.sources.channel_choice import ChannelCopy
from exactile.sources.chunks.cache import ChunkKey
from exactile.sources.chunks.decode_pool import DecodePool
from exactile.sources.chunks.reader import ChunkForm, Inside
from exactile.sources.damage import CorruptFilling
from exactile.sources.positional_file import DamagedDataError, PositionalFile
from exactile.sources.protocol import ReadCount, ReadPlan
from exactile.sources.raw_rows import RawRows
from exactile.sources.sample_types import InexactSampleError
from exactile.sources.tiff.layout import TiffLayout


@dataclass(frozen=True, slots=True, kw_only=True)
class TiffChunks:
    """The chunks of ``layout`` in ``file``; ``copies[i]`` takes the channels from plane i."""

    file: PositionalFile
    layout: TiffLayout
    copies: tuple[ChannelCopy, ...]
    pool: DecodePool
    filling: CorruptFilling

    @property
    def form(self) -> ChunkForm:
        layout = self.layout
        return ChunkForm(
            grid=layout.grid,
            copies=self.copies,
            samples=layout.samples,
            dtype=layout.stored_dtype,
            fill=layout.fill,
            decoding_bytes=layout.decoding_bytes,
        )

    @property
    def chunks_stored(self) -> int:
        return sum(int((plane.sizes_bytes > 0).sum()) for plane in self.layout.planes)

    def decode(self, key: ChunkKey) -> NDArray[Any] | None:
        offset, size_bytes, segment = self.stored(key)
        if size_bytes == 0:
            return None
        return self.layout.planes[key[0]].decode(self.file.read(offset, size_bytes), segment)

    def stored(self, key: ChunkKey) -> tuple[int, int, int]:
        """Return offset, size in bytes and segment index of a chunk; size 0 when it is empty."""
        number, row, column = key
        plane = self.layout.planes[number]
        index = row * self.layout.grid.columns + column
        return int(plane.offsets[index]), int(plane.sizes_bytes[index]), plane.first_segment + index

    def failure(self, key: ChunkKey, reason: object) -> SourceError:
        where = self.layout.describe_chunk(*key)
        return SourceError(f"{self.file.name}: {where} cannot be read: {reason}")

    def damage(self, key: ChunkKey, reason: object) -> SourceError:
        where = self.layout.describe_chunk(*key)
        return SourceError(f"{self.file.name}: {where} cannot be read: {reason}; the file is damaged")


class RawChunkReader:
    """Chunks of plain samples: the needed rows are read in place, nothing is kept."""

    def __init__(self, access: TiffChunks) -> None:
        self._access = access
        self._form = access.form

    def cache_bytes(self, plan: ReadPlan) -> int:  # noqa: ARG002 - nothing is decoded, so nothing is kept
        return 0

    def decoding_bytes(self, plan: ReadPlan) -> int:  # noqa: ARG002 - whatever is read
        chunks = len(self._access.copies) * self._form.grid.rows * self._form.grid.columns
        return min(self._access.pool.workers, chunks) * self._rows(0).most_held_bytes

    def prepare(self, plan: ReadPlan, *, cache_bytes: int) -> None:
        """Nothing to prepare."""

    def read(self, box: Box, out: NDArray[Any]) -> None:
        self._access.pool.for_each(self._copy, list(self._form.parts(box, out)))

    def count(self) -> ReadCount:
        return ReadCount(chunks_decoded=0, chunks_stored=0)

    def _copy(self, part: tuple[ChunkKey, Inside, NDArray[Any]]) -> None:
        key, (rows, columns), out = part
        access, layout = self._access, self._access.layout
        offset, size_bytes, _ = access.stored(key)
        copy = access.copies[key[0]]
        if size_bytes == 0:
            copy.fill(layout.fill, out)
            return
        wanted = Box(Span(rows.start, rows.stop), Span(columns.start, columns.stop))
        try:
            self._rows(offset).copy(access.file, wanted, copy, out)
        except DamagedDataError as error:
            raise access.damage(key, error) from error
        except InexactSampleError as error:
            origin = layout.grid.chunk_box(key[1], key[2])
            raise access.failure(key, error.moved(origin.y.start, origin.x.start)) from error

    def _rows(self, offset: int) -> RawRows:
        layout = self._access.layout
        return RawRows(
            offset=offset, width=layout.grid.chunk_columns, samples=layout.samples, dtype=layout.stored_dtype
        )
