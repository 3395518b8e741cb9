"""A CZI image in blocks of pixels that pylibCZIrw assembles.

At full resolution the library lays sub-blocks over each other by their mosaic index. If that does not decide which is
on top, its sorting does, which depends on the region; so only blocks of a fixed grid are requested. Sub-blocks of
reduced levels, which do not overlap, are read one at a time, as a whole: see ``czi_levels``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.errors import SourceError
from exactile.geometry import Box
from exactile.sources.chunks.cache import ChunkKey
from exactile.sources.chunks.decode_pool import DecodePool
from exactile.sources.chunks.grid import ChunkGrid
from exactile.sources.chunks.reader import MOST_CHUNK_BYTES, ChunkForm
from exactile.sources.czi.directory import Column, CziDirectory
from exactile.sources.czi.handle import CziHandle
from exactile.sources.czi.layout import CziImage
from exactile.sources.czi.places import Places, TileGrid
from exactile.sources.czi.segment import StoredBlock, check_block
from exactile.sources.damage import NOTHING_FILLED, CorruptFilling
from exactile.sources.positional_file import PositionalFile

BLOCK_SIDE = 1024
"""Pixels a side, rounded to whole sub-blocks where these lie on a grid."""

_LARGEST_DOUBLED = 4096
"""Sub-blocks that overlap are decoded for every block that they touch; so blocks hold two a side, of small ones."""

_KEPT_BYTES = 12 << 20
"""Bytes of small sub-blocks that a thread's allocator keeps for the next ones."""

_MOST_BLOCKS = 1 << 22
"""No real image has more blocks: its sub-blocks claim to be far apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CziBlocks:
    """Blocks of each plane of an image; ``places`` are those of its sub-blocks, by plane."""

    file: PositionalFile
    handle: CziHandle
    directory: CziDirectory
    image: CziImage
    places: tuple[Places, ...]
    form: ChunkForm
    pool: DecodePool

    @staticmethod
    def of(
        file: PositionalFile, handle: CziHandle, directory: CziDirectory, image: CziImage, pool: DecodePool
    ) -> CziBlocks:
        """Return the blocks. Raises SourceError if they would be larger, or more, than those of any file."""
        places = tuple(image.places(directory, plane.rows) for plane in image.planes)
        kind = image.channels.kind
        rows, columns = _block_sides(_all(places), image.level.height, image.level.width)
        grid = ChunkGrid(height=image.level.height, width=image.level.width, chunk_rows=rows, chunk_columns=columns)
        largest = max(int((one.height * one.width).max()) for one in places) * kind.pixel_bytes
        block = rows * columns * kind.pixel_bytes
        _check_sizes(grid, max(block, largest), handle.name)
        plain = not any(directory.compression[plane.rows].any() for plane in image.planes)
        form = ChunkForm(
            grid=grid,
            copies=image.channels.copies,
            samples=kind.samples,
            dtype=kind.dtype,
            fill=0,
            decoding_bytes=_decoding_bytes(block, largest, plain=plain, pasted=image.level.factor > 1),
        )
        return CziBlocks(
            file=file, handle=handle, directory=directory, image=image, places=places, form=form, pool=pool
        )

    @property
    def chunks_stored(self) -> int:
        return self.form.grid.rows * self.form.grid.columns * len(self.image.planes)

    def decode(self, key: ChunkKey) -> NDArray[Any] | None:
        box = self.form.grid.chunk_box(key[1], key[2])
        touching = self.places[key[0]].touching(box)
        if not len(touching):
            return None
        for number in self.image.planes[key[0]].rows[touching].tolist():
            check_block(self.file, self._stored(number))
        return self._composed(key[0], box) if self.image.level.factor == 1 else self._pasted(key[0], box, touching)

    @property
    def filling(self) -> CorruptFilling:
        return NOTHING_FILLED

    def failure(self, key: ChunkKey, reason: object) -> SourceError:
        return SourceError(f"{self.handle.name}: {self._where(key)} cannot be read: {reason}")

    def damage(self, key: ChunkKey, reason: object) -> SourceError:
        return SourceError(f"{self.handle.name}: {self._where(key)} cannot be read: {reason}; the file is damaged")

    def _where(self, key: ChunkKey) -> str:
        box = self.form.grid.chunk_box(key[1], key[2])
        at = "".join(f"{letter} {number}, " for letter, number in self.image.planes[key[0]].at.items())
        return f"level {self.image.number}, {at}pixels y {box.y.start}:{box.y.stop}, x {box.x.start}:{box.x.stop}"

    def _stored(self, number: int) -> StoredBlock:
        return StoredBlock(
            position=int(self.directory.position[number]),
            height=int(self.directory.stored_height[number]),
            width=int(self.directory.stored_width[number]),
            kind=self.image.channels.kind,
            compression=int(self.directory.compression[number]),
        )

    def _composed(self, plane: int, box: Box) -> NDArray[Any]:
        """Return a block of the full resolution, as the library lays sub-blocks over each other."""
        frame = self.image.frame
        return self._read(plane, (frame.x + box.x.start, frame.y + box.y.start, box.x.length, box.y.length))

    def _pasted(self, plane: int, box: Box, touching: NDArray[np.int64]) -> NDArray[Any]:
        """Return a block of a reduced level, from whole sub-blocks."""
        block = np.zeros((*box.shape, self.form.samples), self.form.dtype)
        for number in touching.tolist():
            place = self.places[plane].box(number)
            shared = place.intersect(box)
            row = int(self.image.planes[plane].rows[number])
            columns = self.directory.x, self.directory.y, self.directory.width, self.directory.height
            x, y, width, height = (int(column[row]) for column in columns)
            pixels = self._read(plane, (x, y, width, height))
            block[shared.slices(box)] = pixels[shared.slices(place)]
        return block

    def _read(self, plane: int, region: tuple[int, int, int, int]) -> NDArray[Any]:
        image = self.image
        return self.handle.read(region, image.planes[plane].at, image.scene, image.level.factor, image.channels.kind)


def _all(places: Sequence[Places]) -> Places:
    """Return the places of all planes, each once: usually the same for each."""
    columns: list[Column] = [
        np.concatenate([getattr(one, name) for one in places]) for name in ("y", "x", "height", "width")
    ]
    return Places(y=columns[0], x=columns[1], height=columns[2], width=columns[3]).unique()


def _block_sides(places: Places, height: int, width: int) -> tuple[int, int]:
    """Return whole sub-blocks near BLOCK_SIDE if these lie on a grid from the first pixel on: each is decoded once."""
    grid = TileGrid.of(places)
    if grid is not None and (grid.y, grid.x) == (0, 0) and grid.is_dense(places):
        sides = [cell * max(1, BLOCK_SIDE // cell) for cell in (grid.rows, grid.columns)]
    else:
        sides = [_doubled(int(np.median(column))) for column in (places.height, places.width)]
    return min(sides[0], height), min(sides[1], width)


def _doubled(side: int) -> int:
    return side if side > _LARGEST_DOUBLED else side * max(2, -(-2 * BLOCK_SIDE // side))


def _decoding_bytes(block: int, largest: int, *, plain: bool, pasted: bool) -> int:
    """Return the library's memory for a block: first for decoding a sub-block, then for a copy of the result.

    A compressed sub-block exists as stored, and in two steps of its decoding.
    """
    decoded = largest if plain else 3 * largest
    return _KEPT_BYTES + (block + largest + max(largest, decoded) if pasted else block + max(block, decoded))


def _check_sizes(grid: ChunkGrid, largest_bytes: int, name: str) -> None:
    if largest_bytes > MOST_CHUNK_BYTES:
        raise SourceError(
            f"{name}: a sub-block takes {largest_bytes / 2**30:.1f} GiB, and one is decoded as a whole, up to "
            f"{MOST_CHUNK_BYTES >> 30} GiB; save it with ZEN in smaller tiles, or as OME-TIFF"
        )
    if grid.rows * grid.columns > _MOST_BLOCKS:
        raise SourceError(
            f"{name}: its sub-blocks claim to be far apart, in an image of {grid.height} x {grid.width} pixels; "
            "the file is damaged"
        )
