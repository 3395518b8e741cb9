"""Tiles as the chunks of Zarr arrays, one array a level."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.sinks.failures import os_errors_as_sink_errors
from exactile.sinks.files.part_file import sync_folder
from exactile.sinks.tiles.codec import checksum
from exactile.sinks.tiles.grid import TileGrid
from exactile.sinks.tiles.store import EncodedTile, StoredTile, TileKey

PARTIAL = ".partial"
"""Suffix of the name of a chunk while it is written."""

SYNC_THREADS = 8
"""A disk writes many small files at once in hardly more time than one."""

ChunkEncoder = Callable[[NDArray[np.uint8]], Any]
"""From a chunk's bytes to its stored bytes. Releases the interpreter lock."""


class ZarrStore:
    """Writes each tile as one chunk, in the thread that encodes it; chunks of only zeros have no file.

    ``arrays`` are (H, W) or (C, H, W) of format 3, chunked by the tiles of ``grids``; they lie in ``folder``, and their
    chunks are ``encode`` of samples of ``dtype``, lowest byte first. The files are written here and not by the zarr
    package, whose event loop is one thread. With ``held``, nothing is written once that very folder was removed, even
    if another one has its name.
    """

    def __init__(
        self,
        folder: Path,
        arrays: Sequence[Any],
        grids: Sequence[TileGrid],
        *,
        dtype: np.dtype[Any],
        encode: ChunkEncoder,
        held: bool = False,
    ) -> None:
        self.folder = folder
        self._held = _HeldFolder(folder) if held else None
        # Processes that write the same chunk, one of them for a worker that was lost, do not write the same file.
        self._new_suffix = f".{secrets.token_hex(4)}{PARTIAL}" if held else PARTIAL
        self._arrays = arrays
        self._stacked = arrays[0].ndim == 3
        self._grids = grids
        self._dtype = dtype
        self._stored_dtype = dtype.newbyteorder("<")
        self._encode = encode
        self._unsynced: list[TileKey] = []

    def encode(self, key: TileKey, tile: NDArray[Any]) -> EncodedTile:
        stored = np.ascontiguousarray(tile, self._stored_dtype).reshape(-1).view(np.uint8)
        path, within = self._chunk_path(key), self._within
        with os_errors_as_sink_errors(self.folder):
            if stored.any():
                _write_new(path, self._encode(stored), within, self._new_suffix)
            else:
                with suppress(FileNotFoundError):  # an earlier run may have left a damaged one
                    os.unlink(path, dir_fd=within)
        return EncodedTile(b"", _crc(tile))

    def append(self, key: TileKey, encoded: EncodedTile) -> StoredTile:
        self._unsynced.append(key)
        return StoredTile(key=key, offset_bytes=0, size_bytes=0, crc=encoded.crc)

    def flush(self) -> None:
        """Do nothing: chunks were written when they were encoded."""

    def holds(self, stored: StoredTile) -> bool:
        try:
            return _crc(self.pixels(stored.key)) == stored.crc
        except Exception:  # noqa: BLE001 -- a damaged chunk makes codecs raise anything
            return False

    def restore(self, stored: StoredTile) -> None:
        """Do nothing: chunks have names."""

    def pixels(self, key: TileKey) -> NDArray[Any]:
        grid = self._grids[key.level]
        tile = np.zeros((grid.tile_px, grid.tile_px), self._dtype)
        height, width = grid.tile_box(key.tile).shape
        tile[:height, :width] = self._arrays[key.level][self._where(key)]
        return tile

    def settle(self) -> None:
        """Remove what a killed process was writing; other chunks are written again with the same content."""
        for left in self.folder.rglob(f"*{PARTIAL}"):
            left.unlink(missing_ok=True)

    def sync(self) -> None:
        # Another thread may append meanwhile: its chunks come after these.
        unsynced = self._unsynced[:]
        del self._unsynced[: len(unsynced)]
        paths = [self._chunk_path(key) for key in unsynced]
        with os_errors_as_sink_errors(self.folder), ThreadPoolExecutor(SYNC_THREADS, "exactile-sync") as pool:
            list(pool.map(partial(_sync_file, within=self._within), paths))
        for folder in {os.path.dirname(path) for path in paths}:  # noqa: PTH120 - as below
            sync_folder(self.folder / folder)

    def complete(self) -> None:
        """Flush the chunks to the disk before the folder gets its name; they are found by their names."""
        self.sync()

    def _where(self, key: TileKey) -> tuple[Any, ...]:
        slices = self._grids[key.level].tile_box(key.tile).slices()
        return (key.plane, *slices) if self._stacked else slices

    def _chunk(self, key: TileKey) -> tuple[int, int]:
        """Return its row and column in the array."""
        return divmod(key.tile, self._grids[key.level].columns)

    @property
    def _within(self) -> int | None:
        """Return the descriptor of the folder that paths of chunks are relative to; None if they are absolute."""
        return None if self._held is None else self._held.descriptor

    def _chunk_path(self, key: TileKey) -> str:
        """Return a string: paths as objects take longer than the smaller chunks."""
        row, column = self._chunk(key)
        front = f"{key.plane}/" if self._stacked else ""
        path = f"{key.level}/c/{front}{row}/{column}"
        return path if self._held is not None else f"{self.folder}/{path}"


class _HeldFolder:
    """An open descriptor of a folder: writes through it go to that folder, or nowhere once it was removed."""

    def __init__(self, folder: Path) -> None:
        with os_errors_as_sink_errors(folder):
            self.descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def __del__(self) -> None:
        with suppress(OSError, AttributeError):
            os.close(self.descriptor)


def _write_new(path: str, data: Any, within: int | None, suffix: str) -> None:
    """Write a file that appears complete, replacing an existing one; ``path`` may be relative to a descriptor."""
    partial_path = f"{path}{suffix}"
    try:
        _write(partial_path, data, within)
    except FileNotFoundError:
        _make_folders(os.path.dirname(path), within)  # noqa: PTH120 - as above
        _write(partial_path, data, within)
    os.replace(partial_path, path, src_dir_fd=within, dst_dir_fd=within)


def _make_folders(path: str, within: int | None) -> None:
    if within is None:
        os.makedirs(path, exist_ok=True)  # noqa: PTH103 - as above
        return
    steps = path.split("/")
    for count in range(1, len(steps) + 1):
        with suppress(FileExistsError):
            os.mkdir("/".join(steps[:count]), dir_fd=within)


def _write(path: str, data: Any, within: int | None) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666, dir_fd=within)
    try:
        left = memoryview(data).cast("B")
        while left:
            left = left[os.write(descriptor, left) :]
    finally:
        os.close(descriptor)


def _sync_file(path: str, within: int | None) -> None:
    with suppress(FileNotFoundError):  # a chunk of zeros
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=within)
        try:
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)


def _crc(tile: NDArray[Any]) -> int:
    return checksum(np.ascontiguousarray(tile))
