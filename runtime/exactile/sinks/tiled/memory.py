"""Predict the memory of a sink that writes tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from exactile.sinks.blocks import plane_count
from exactile.sinks.protocol import ResultSpec, WritePlan
from exactile.sinks.resume.safekeeping import MOST_NOTED_BYTES
from exactile.sinks.tiles.assembly import most_open_tiles
from exactile.sinks.tiles.codec import most_encoded_bytes
from exactile.sinks.tiles.encode_queue import queue_tiles
from exactile.sinks.tiles.grid import TileGrid
from exactile.sinks.tiles.store import MOST_WAITING_BYTES

_CODEC_STATE_BYTES = 2 << 20  # what a codec allocates for itself while it encodes one tile
_MEAN_BYTES_PER_PX = 24  # three arrays of float64, of which two are a quarter as large, and what is rounded
_TABLE_BYTES_PER_TILE = 128  # offset and size, in our tables and, at the end, as Python integers in tifffile's


@dataclass(frozen=True, slots=True, kw_only=True)
class TilesMemory:
    """The memory of a sink for a result in the tiles of ``grids``, one for each level of the pyramid.

    ``has_levels``: levels are made; ``resumable``: pieces of tiles are kept in a journal.
    """

    spec: ResultSpec
    grids: Sequence[TileGrid]
    resumable: bool
    has_levels: bool

    def buffer_bytes(self, plan: WritePlan, workers: int) -> int:
        """Return the bytes of raw tiles in assembly, tiles in the queue, codecs and means, and tile tables."""
        planes = plane_count(self.spec)
        height, width = self.spec.height, self.spec.width
        # In pixels of the full resolution a tile of level n is 2^n times as large.
        seen = (TileGrid(height=height, width=width, tile_px=g.tile_px << n) for n, g in enumerate(self.grids))
        open_tiles = sum(most_open_tiles(plan, grid) for grid in seen)
        tables_bytes = planes * sum(grid.count for grid in self.grids) * _TABLE_BYTES_PER_TILE
        return open_tiles * planes * self._tile_bytes + tables_bytes + self.compressing_bytes(workers)

    def compressing_bytes(self, workers: int) -> int:
        """Return the bytes that ``workers`` threads process, and those that wait before and after them."""
        grid, planes = self.grids[0], plane_count(self.spec)
        tile_bytes, queued = self._tile_bytes, queue_tiles(workers)
        queued_all_planes = (queued + planes - 2) // planes + 1  # tiles of whose planes some are queued
        encoded_bytes = (queued + workers) * most_encoded_bytes(tile_bytes) + MOST_WAITING_BYTES
        if self.resumable:  # a piece of a tile, for the journal, is one of all planes
            encoded_bytes += 2 * max(workers, planes) * tile_bytes + 2 * MOST_NOTED_BYTES
        mean_bytes = grid.tile_px**2 * _MEAN_BYTES_PER_PX if self.has_levels and self.spec.channels else 0
        return queued_all_planes * planes * tile_bytes + encoded_bytes + workers * max(_CODEC_STATE_BYTES, mean_bytes)

    @property
    def _tile_bytes(self) -> int:
        """The bytes of one plane of one tile."""
        return int(self.grids[0].tile_px ** 2 * np.dtype(self.spec.dtype).itemsize)
