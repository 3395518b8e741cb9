"""Encoded tiles in a BigTIFF, appended as they come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.geometry import round_up
from exactile.sinks.files.part_file import PartFile
from exactile.sinks.tiff.tables import TileTable, fill_tile_tables
from exactile.sinks.tiles.codec import Decoder, Encoder, checksum
from exactile.sinks.tiles.grid import TileGrid
from exactile.sinks.tiles.store import MOST_WAITING_BYTES, EncodedTile, StoredTile, TileKey

ALIGNMENT_BYTES = 16


class TiffStore:
    """Appends tiles to ``part`` after ``first_bytes``, which precede the pixels."""

    def __init__(
        self,
        part: PartFile,
        grids: Sequence[TileGrid],
        *,
        planes: int,
        first_bytes: int,
        codec: tuple[Encoder, Decoder],
    ) -> None:
        self._part = part
        self._encode, self._decode = codec
        self._end_bytes = round_up(first_bytes, ALIGNMENT_BYTES)
        self._waiting: list[bytes | memoryview] = []
        self._waiting_bytes = 0
        self.tables = tuple(
            TileTable(np.zeros((planes, grid.count), np.uint64), np.zeros((planes, grid.count), np.uint64))
            for grid in grids
        )

    def encode(self, key: TileKey, tile: NDArray[Any]) -> EncodedTile:  # noqa: ARG002 -- the seam's signature
        data = self._encode(tile)
        return EncodedTile(data, checksum(data))

    def append(self, key: TileKey, encoded: EncodedTile) -> StoredTile:
        size_bytes = len(encoded.data)
        stored = StoredTile(key=key, offset_bytes=self._end_bytes, size_bytes=size_bytes, crc=encoded.crc)
        self.restore(stored)
        self._waiting.append(encoded.data)
        self._waiting_bytes += size_bytes
        if self._waiting_bytes >= MOST_WAITING_BYTES:
            self.flush()
        return stored

    def flush(self) -> None:
        waiting, first_bytes = self._waiting, self._end_bytes - self._waiting_bytes
        self._waiting, self._waiting_bytes = [], 0
        self._part.write_all_at(waiting, first_bytes)

    def holds(self, stored: StoredTile) -> bool:
        data = self._part.read_at(stored.size_bytes, stored.offset_bytes)
        return len(data) == stored.size_bytes and checksum(data) == stored.crc

    def restore(self, stored: StoredTile) -> None:
        table, key = self.tables[stored.key.level], stored.key
        table.offsets_bytes[key.plane, key.tile] = stored.offset_bytes
        table.sizes_bytes[key.plane, key.tile] = stored.size_bytes
        self._end_bytes = max(self._end_bytes, stored.offset_bytes + stored.size_bytes)

    def pixels(self, key: TileKey) -> NDArray[Any]:
        table = self.tables[key.level]
        where = int(table.sizes_bytes[key.plane, key.tile]), int(table.offsets_bytes[key.plane, key.tile])
        return self._decode(self._part.read_at(*where))

    def settle(self) -> None:
        self._part.cut(self._end_bytes)

    def sync(self) -> None:
        self._part.sync()

    def complete(self) -> None:
        self.flush()
        fill_tile_tables(self._part.part_path, self.tables)
