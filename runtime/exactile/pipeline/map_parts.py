"""Move parts of kept maps from scratch files to the network, and from it to the files, while it runs.

The network's thread cuts out and puts in parts of maps in memory, which takes hardly any time. Those in files are read
by the reading thread and written by the writing thread, in two sets that are reused.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.contract.kept_map import KeptMap
from exactile.geometry import Box
from exactile.kept_maps.store import SETS, Buffers, MapStore
from exactile.pipeline.cancellation import Cancellation
from exactile.pipeline.channel import Channel
from exactile.pipeline.timing import TimeSpan

Parts = Mapping[str, NDArray[Any]]


class PartsRead:
    """The parts of ``maps`` for the tiles of one pass, or of the result."""

    def __init__(self, store: MapStore, maps: Sequence[KeptMap], cancellation: Cancellation) -> None:
        self._store = store
        self._in_memory, self._on_disk = store.divided(maps)
        self._buffers = store.buffers()
        self._free = _sets(store, cancellation)
        self._ready: Channel[tuple[Box, Buffers, Parts]] = Channel(SETS, cancellation)
        self._taken: Buffers | None = None

    def ahead(self, tile: Box) -> TimeSpan | None:
        """Read what ``tile`` needs from files; wait while two sets are ready or in use. Return when that was.

        Called by one thread, in the order in which tiles are taken. Raises SinkError, CancelledError.
        """
        if not self._on_disk:
            return None
        buffers = self._free.get()
        begin = time.perf_counter()
        parts = self._store.read(self._on_disk, tile, buffers)
        end = time.perf_counter()
        self._ready.put((tile, buffers, parts))
        return TimeSpan("read", "read", begin, end)

    def take(self, tile: Box) -> Parts:
        """Return the parts for ``tile`` by the names of graph inputs; valid until the next call. Raises
        CancelledError.
        """
        found = self._store.read(self._in_memory, tile, self._buffers)
        if not self._on_disk:
            return found
        if self._taken is not None:
            self._free.put(self._taken)
        ready, self._taken, parts = self._ready.get()
        assert ready == tile, "parts of another tile were read ahead"
        return {**found, **parts}


class PartsMade:
    """The parts of ``maps`` that the tiles of a pass compute."""

    def __init__(self, store: MapStore, maps: Sequence[KeptMap], cancellation: Cancellation) -> None:
        self._store = store
        self._in_memory, self._on_disk = store.divided(maps)
        self._buffers = store.buffers()
        self._free = _sets(store, cancellation)

    def take(self, tile: Box, zone: NDArray[np.int64]) -> Made:
        """Return arrays for the parts that ``tile`` computes; wait while two sets are being written. Raises
        CancelledError.
        """
        arrays = self._store.parts(self._in_memory, tile, zone, self._buffers)
        buffers = None
        if self._on_disk:
            buffers = self._free.get()
            arrays = {**arrays, **self._store.parts(self._on_disk, tile, zone, buffers)}
        return Made(self, tile, zone, arrays, buffers)

    def keep(self, made: Made) -> None:
        self._store.write(self._in_memory, made.tile, made.zone, made.arrays)

    def write(self, made: Made) -> TimeSpan | None:
        if made.buffers is None:
            return None
        begin = time.perf_counter()
        self._store.write(self._on_disk, made.tile, made.zone, made.arrays)
        end = time.perf_counter()
        self._free.put(made.buffers)
        return TimeSpan("write", "write", begin, end)


@dataclass(frozen=True, slots=True)
class Made:
    """The parts that a tile computes: ``arrays`` by the names of graph outputs; those of maps in files are in
    ``buffers``.
    """

    of: PartsMade
    tile: Box
    zone: NDArray[np.int64]
    arrays: Parts
    buffers: Buffers | None

    def keep(self) -> None:
        """Copy the parts of maps in memory; call this before the next ``PartsMade.take``."""
        self.of.keep(self)

    def write(self) -> TimeSpan | None:
        """Write the rest to files, in any thread. Return when that was. Raises SinkError, CancelledError."""
        return self.of.write(self)


def _sets(store: MapStore, cancellation: Cancellation) -> Channel[Buffers]:
    """Return a queue of free sets."""
    free: Channel[Buffers] = Channel(SETS, cancellation)
    for _ in range(SETS):
        free.put(store.buffers())
    return free
