"""Encoded tiles in the output, and where each of them lies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from exactile.geometry import round_up
from exactile.sinks.part_file import PartFile

_ALIGNMENT_BYTES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class TileKey:
    """One tile of one plane."""

    plane: int
    tile: int


class TileStore:
    """Appends tiles to ``part`` behind what it holds now. Used from one thread."""

    def __init__(self, part: PartFile, *, planes: int, tiles: int) -> None:
        self._part = part
        self._end_bytes = round_up(part.size_bytes, _ALIGNMENT_BYTES)
        self.offsets_bytes = np.zeros((planes, tiles), np.uint64)
        """Where tiles begin in the file, (planes, tiles); 0 until they are stored."""
        self.sizes_bytes = np.zeros((planes, tiles), np.uint64)

    def append(self, key: TileKey, encoded: bytes | memoryview) -> None:
        """Raises SinkError if the disk does not take it."""
        self._part.write_at(encoded, self._end_bytes)
        self.offsets_bytes[key.plane, key.tile] = self._end_bytes
        self.sizes_bytes[key.plane, key.tile] = len(encoded)
        self._end_bytes += len(encoded)
