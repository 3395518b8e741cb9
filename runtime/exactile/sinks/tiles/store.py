"""Encoded tiles in the output, and their places."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray

MOST_WAITING_BYTES = 1 << 18
"""Bytes of encoded tiles that wait to be written together, at most, plus a tile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TileKey:
    """One tile of one plane; level 0 is full resolution, each further one half of that before."""

    level: int = 0
    plane: int
    tile: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTile:
    """A tile, its place in the output, and the CRC-32 of its bytes there."""

    key: TileKey
    offset_bytes: int
    size_bytes: int
    crc: int


class EncodedTile(NamedTuple):
    """The encoded bytes of a tile, and their CRC-32."""

    data: bytes | memoryview
    crc: int


class TileStore(Protocol):
    """Takes encoded tiles of all levels. ``encode`` is called in several threads, ``sync`` beside other calls."""

    def encode(self, key: TileKey, tile: NDArray[Any]) -> EncodedTile:
        """Return what ``append`` takes for ``tile``, (tile, tile), C-contiguous. Releases the interpreter lock."""

    def append(self, key: TileKey, encoded: EncodedTile) -> StoredTile:
        """Give it a place. It is there after ``flush``, or earlier. Raises SinkError if the disk does not accept it."""

    def flush(self) -> None:
        """Write what was appended, so that it survives the process. Raises SinkError."""

    def holds(self, stored: StoredTile) -> bool:
        """Return whether a tile of an earlier run is there undamaged."""

    def restore(self, stored: StoredTile) -> None:
        """Register a tile of an earlier run."""

    def pixels(self, key: TileKey) -> NDArray[Any]:
        """Return a stored tile, decoded: (tile, tile)."""

    def settle(self) -> None:
        """Drop everything after the restored tiles of the earlier run."""

    def sync(self) -> None:
        """Flush to the disk what was flushed before the call. Raises SinkError."""

    def complete(self) -> None:
        """Write what readers need to find the tiles, after every tile is appended."""
