"""Tiles as the chunks of Zarr arrays, one array a level."""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.errors import SinkError
from exactile.sinks.part_file import sync_folder
from exactile.sinks.tile_grid import TileGrid
from exactile.sinks.tile_store import StoredTile, TileKey

_CRC_BYTES = 4


class ZarrStore:
    """Writes each tile as one chunk, in the thread that encodes it; chunks of zeros alone take no file.

    ``arrays`` are (H, W) or (C, H, W), chunked by the tiles of ``grids``; they lie in ``folder``.
    """

    def __init__(self, folder: Path, arrays: Sequence[Any], grids: Sequence[TileGrid], *, dtype: np.dtype[Any]) -> None:
        self._folder = folder
        self._arrays = arrays
        self._grids = grids
        self._dtype = dtype
        self._unsynced: list[TileKey] = []

    def encode(self, key: TileKey, tile: NDArray[Any]) -> bytes:
        height, width = self._grids[key.level].tile_box(key.tile).shape
        try:
            self._arrays[key.level][self._where(key)] = tile[:height, :width]
        except OSError as error:
            raise SinkError(
                f"cannot write {self._folder}: {error}. What to do: check the disk, then --resume"
            ) from error
        return _crc(tile).to_bytes(_CRC_BYTES, "little")

    def append(self, key: TileKey, encoded: bytes | memoryview) -> StoredTile:
        self._unsynced.append(key)
        return StoredTile(key=key, offset_bytes=0, size_bytes=0, crc=int.from_bytes(encoded, "little"))

    def holds(self, stored: StoredTile) -> bool:
        try:
            return _crc(self.pixels(stored.key)) == stored.crc
        except Exception:  # noqa: BLE001 -- a damaged chunk makes codecs raise anything
            return False

    def restore(self, stored: StoredTile) -> None:
        """There is nothing to note: chunks have names."""

    def pixels(self, key: TileKey) -> NDArray[Any]:
        grid = self._grids[key.level]
        tile = np.zeros((grid.tile_px, grid.tile_px), self._dtype)
        height, width = grid.tile_box(key.tile).shape
        tile[:height, :width] = self._arrays[key.level][self._where(key)]
        return tile

    def settle(self) -> None:
        """Remove what a killed process was writing; other chunks are written again with the same content."""
        for left in self._folder.rglob("*.partial"):
            left.unlink(missing_ok=True)

    def sync(self) -> None:
        folders = set()
        for key in self._unsynced:
            path = self._chunk_path(key)
            folders.add(path.parent)
            with suppress(FileNotFoundError):  # a chunk of zeros
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    os.fdatasync(descriptor)
                finally:
                    os.close(descriptor)
        for folder in folders:
            sync_folder(folder)
        self._unsynced.clear()

    def complete(self) -> None:
        """Chunks are found by their names; they have to be on the disk before the folder gets its own."""
        self.sync()

    def _where(self, key: TileKey) -> tuple[Any, ...]:
        slices = self._grids[key.level].tile_box(key.tile).slices()
        return (key.plane, *slices) if self._arrays[key.level].ndim == 3 else slices

    def _chunk_path(self, key: TileKey) -> Path:
        row, column = divmod(key.tile, self._grids[key.level].columns)
        front = [str(key.plane)] if self._arrays[key.level].ndim == 3 else []
        return self._folder.joinpath(str(key.level), "c", *front, str(row), str(column))


def _crc(tile: NDArray[Any]) -> int:
    return zlib.crc32(np.ascontiguousarray(tile).data)
