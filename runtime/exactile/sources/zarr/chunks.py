"""The stored chunks of a Zarr array, each decoded as a whole."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.errors import SourceError
from exactile.sources.channel_choice import ChannelCopy
from exactile.sources.chunks.cache import ChunkKey
from exactile.sources.chunks.decode_pool import DecodePool
from exactile.sources.chunks.grid import ChunkGrid
from exactile.sources.chunks.reader import MOST_CHUNK_BYTES, ChunkForm
from exactile.sources.damage import NOTHING_FILLED, CorruptFilling
from exactile.sources.positional_file import DamagedDataError
from exactile.sources.zarr.store import marker_of
from exactile.sources.zarr.stored import StoredChunks, stored_chunks


@dataclass(frozen=True, slots=True, kw_only=True)
class ZarrChunks:
    """One plane of pixels of ``array``, at ``positions`` along the axes other than Y, X and C.

    A plane of the form is a chunk along C: ``channel_chunks`` are those with wanted channels.
    """

    name: str
    array: Any
    axes: str
    positions: tuple[int, ...]
    channel_chunks: tuple[int, ...]
    form: ChunkForm
    pool: DecodePool
    stored: StoredChunks | None = None
    """Where the chunks lie, if they are decoded without the zarr package."""
    marker: Path | None = None
    """The file that makes the array's folder Zarr; None at an address."""

    @staticmethod
    def of(
        array: Any,
        axes: str,
        positions: tuple[int, ...],
        channels: tuple[int, ...],
        *,
        name: str,
        pool: DecodePool,
        store: str | os.PathLike[str] | None,
    ) -> ZarrChunks:
        """Return the chunks; ``store`` is the folder or address at which the array was opened, if any.

        Raises SourceError for chunks too large to be decoded as a whole.
        """
        sizes, chunks = dict(zip(axes, array.shape, strict=True)), dict(zip(axes, array.chunks, strict=True))
        stored_bytes = math.prod(array.chunks) * array.dtype.itemsize
        if stored_bytes > MOST_CHUNK_BYTES:
            raise SourceError(
                f"{name}: its chunks of {array.chunks} decode to {stored_bytes} bytes each, but at most"
                f" {MOST_CHUNK_BYTES} are taken; store it in smaller chunks"
            )
        grid = ChunkGrid(height=sizes["Y"], width=sizes["X"], chunk_rows=chunks["Y"], chunk_columns=chunks["X"])
        samples = chunks.get("C", 1)
        used = tuple(sorted({channel // samples for channel in channels}))
        kept_bytes = grid.chunk_rows * grid.chunk_columns * samples * array.dtype.itemsize
        form = ChunkForm(
            grid=grid,
            copies=tuple(_copy_of(index * samples, samples, channels) for index in used),
            samples=samples,
            dtype=array.dtype,
            fill=0,
            # As stored, which is hardly ever more than its pixels; the whole chunk; and what is taken out of it.
            decoding_bytes=2 * stored_bytes + kept_bytes,
        )
        return ZarrChunks(
            name=name,
            array=array,
            axes=axes,
            positions=positions,
            channel_chunks=used,
            form=form,
            pool=pool,
            stored=stored_chunks(array) if store is not None else None,
            marker=marker_of(store, array.path) if store is not None else None,
        )

    @property
    def chunks_stored(self) -> int:
        """Number of chunks in the grid: only a listing of the store would tell which of them exist."""
        return self.form.grid.rows * self.form.grid.columns * len(self.channel_chunks)

    def decode(self, key: ChunkKey) -> NDArray[Any]:
        """Return the chunk's pixels; if it is missing, the array's fill value."""
        chunk = None if self.stored is None else self._decode_stored(self.stored, key)
        if chunk is not None:
            return chunk
        box = self.form.grid.chunk_box(key[1], key[2])
        first = self.channel_chunks[key[0]] * self.form.samples
        spans = {"Y": slice(*_ends(box.y)), "X": slice(*_ends(box.x)), "C": slice(first, first + self.form.samples)}
        selection = tuple(spans.get(axis, place) for axis, place in zip(self.axes, self.positions, strict=True))
        pixels = self._as_image(np.asarray(self.array[selection]))
        self._check_there()
        return self._with_all_samples(pixels)

    def _decode_stored(self, stored: StoredChunks, key: ChunkKey) -> NDArray[Any]:
        """Return the pixels of a chunk in a file, including those beyond the array's edges."""
        places = {"Y": key[1], "X": key[2], "C": self.channel_chunks[key[0]]}
        sizes = list(zip(self.axes, self.positions, stored.shape, strict=True))
        chunk = stored.read(tuple(places.get(axis, position // size) for axis, position, size in sizes))
        if chunk is None:
            self._check_there()
            chunk = stored.missing()
        pixels = chunk[tuple(slice(None) if axis in places else position % size for axis, position, size in sizes)]
        if pixels.size < chunk.size:  # a view would keep the rest of the chunk, too
            pixels = pixels.copy()
        return self._as_image(pixels)

    def _as_image(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Return the array with axes in the order Y, X, C."""
        kept = [axis for axis in self.axes if axis in "YXC"]
        pixels = pixels.transpose([kept.index(axis) for axis in "YXC" if axis in kept])
        return pixels if "C" in kept else pixels[..., None]

    def _check_there(self) -> None:
        """Check that the array still exists: an unmounted disk looks like unwritten chunks. Raises DamagedDataError."""
        if self.marker is not None and not self.marker.is_file():
            raise DamagedDataError(f"{self.marker} is there no more")

    @property
    def filling(self) -> CorruptFilling:
        return NOTHING_FILLED

    def failure(self, key: ChunkKey, reason: object) -> SourceError:
        return self.damage(key, reason)

    def damage(self, key: ChunkKey, reason: object) -> SourceError:
        box = self.form.grid.chunk_box(key[1], key[2])
        where = f"pixels y {box.y.start}:{box.y.stop}, x {box.x.start}:{box.x.stop}"
        return SourceError(f"{self.name}: chunk {self._stored_key(key)} ({where}) cannot be read: {reason}")

    def _with_all_samples(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Pad the last chunk along C, which may hold fewer channels than the others."""
        missing = self.form.samples - pixels.shape[2]
        return np.pad(pixels, ((0, 0), (0, 0), (0, missing))) if missing else pixels

    def _stored_key(self, key: ChunkKey) -> str:
        """Return the store's name of a chunk, or of its shard."""
        box = self.form.grid.chunk_box(key[1], key[2])
        starts = {"Y": box.y.start, "X": box.x.start, "C": self.channel_chunks[key[0]] * self.form.samples}
        places = [starts.get(axis, place) for axis, place in zip(self.axes, self.positions, strict=True)]
        stored = self.array.shards or self.array.chunks
        chunk_key: str = self.array.metadata.encode_chunk_key(
            tuple(place // size for place, size in zip(places, stored, strict=True))
        )
        return f"{self.array.path}/{chunk_key}".lstrip("/")


def _ends(span: Any) -> tuple[int, int]:
    return span.start, span.stop


def _copy_of(first: int, samples: int, channels: tuple[int, ...]) -> ChannelCopy:
    """Return a copy of the wanted ones of channels ``first`` to ``first + samples``."""
    pairs = [(c - first, target) for target, c in enumerate(channels) if first <= c < first + samples]
    return ChannelCopy(tuple(sample for sample, _ in pairs), tuple(target for _, target in pairs))
