"""Encoded tiles in the output, and where each of them lies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray

MOST_WAITING_BYTES = 1 << 18
"""Encoded tiles that wait to be written together: so many bytes, and a tile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TileKey:
    """One tile of one plane; level 0 is full resolution, each further one half of that before."""

    level: int = 0
    plane: int
    tile: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTile:
    """A tile, where it lies in the output, and the CRC-32 of what lies there."""

    key: TileKey
    offset_bytes: int
    size_bytes: int
    crc: int


class EncodedTile(NamedTuple):
    """What is stored of a tile, and the CRC-32 of it."""

    data: bytes | memoryview
    crc: int


class TileStore(Protocol):
    """Takes encoded tiles of all levels. ``encode`` is called in several threads, ``sync`` beside other calls."""

    def encode(self, key: TileKey, tile: NDArray[Any]) -> EncodedTile:
        """Return what ``append`` takes for ``tile``, (tile, tile), C-contiguous. Releases the interpreter lock."""

    def append(self, key: TileKey, encoded: EncodedTile) -> StoredTile:
        """Give it a place. It lies there after ``flush``, or earlier. Raises SinkError if the disk does not take it."""

    def flush(self) -> None:
        """Write what was appended, so that it stays when the process ends. Raises SinkError."""

    def holds(self, stored: StoredTile) -> bool:
        """Return whether a tile of an earlier run lies there undamaged."""

    def restore(self, stored: StoredTile) -> None:
        """Take note of a tile of an earlier run."""

    def pixels(self, key: TileKey) -> NDArray[Any]:
        """Return a stored tile, decoded: (tile, tile)."""

    def settle(self) -> None:
        """All tiles of the earlier run are restored: what lies behind them is dropped."""

    def sync(self) -> None:
        """Bring what was flushed before the call to the disk. Raises SinkError."""

    def complete(self) -> None:
        """Every tile is appended: write what readers need to find them."""
