"""Decoded chunks kept for their next use, within a number of bytes."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

ChunkKey = tuple[int, int, int]
"""Plane, chunk row, chunk column."""


class ChunkCache:
    """Holds at most ``limit_bytes``; beyond that, the chunk whose next use is latest is evicted first.

    Callable from several threads. A pinned chunk is in use: it counts, and is never evicted.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0
        self.peak_bytes = 0
        self._lock = threading.Lock()
        self._chunks: dict[ChunkKey, tuple[NDArray[Any], int]] = {}
        self._pinned: dict[ChunkKey, NDArray[Any]] = {}
        # Largest next use first. An entry is stale if the chunk is gone or has another next use by now.
        self._order: list[tuple[int, ChunkKey]] = []

    def pin(self, keys: Sequence[ChunkKey]) -> list[NDArray[Any] | None]:
        """Return the chunks, held until ``unpin``; None for each that is missing."""
        found: list[NDArray[Any] | None] = []
        with self._lock:
            for key in keys:
                entry = self._chunks.pop(key, None)
                if entry is None:
                    found.append(None)
                    continue
                self._pinned[key] = entry[0]
                found.append(entry[0])
        return found

    def unpin(self, uses: Sequence[tuple[ChunkKey, int | None]]) -> None:
        """Unpin chunks: each is kept for its next use, or dropped if that is None."""
        with self._lock:
            for key, next_use in uses:
                chunk = self._pinned.pop(key)
                if next_use is None:
                    self.held_bytes -= chunk.nbytes
                else:
                    self._enter(key, chunk, next_use)

    def put(self, key: ChunkKey, chunk: NDArray[Any], next_use: int) -> None:
        """Keep a new chunk for ``next_use``, unless all held chunks are used earlier and there is no room."""
        with self._lock:
            while self.held_bytes + chunk.nbytes > self.limit_bytes:
                if not self._evict_later_than(next_use):
                    return
            self.held_bytes += chunk.nbytes
            self.peak_bytes = max(self.peak_bytes, self.held_bytes)
            self._enter(key, chunk, next_use)

    def clear(self, limit_bytes: int) -> None:
        """Drop everything and start again with another limit; nothing may be pinned."""
        with self._lock:
            self.limit_bytes = limit_bytes
            self.held_bytes = self.peak_bytes = 0
            self._chunks.clear()
            self._order.clear()

    def _enter(self, key: ChunkKey, chunk: NDArray[Any], next_use: int) -> None:
        self._chunks[key] = (chunk, next_use)
        heapq.heappush(self._order, (-next_use, key))
        # Chunks that are used up leave their entries behind; without this the list would grow with the image.
        if len(self._order) > 64 + 4 * len(self._chunks):
            self._order = [(-use, name) for name, (_, use) in self._chunks.items()]
            heapq.heapify(self._order)

    def _evict_later_than(self, next_use: int) -> bool:
        """Evict the chunk with the latest use, if it is later than ``next_use``; return whether one was evicted."""
        while self._order and -self._order[0][0] > next_use:
            use, key = heapq.heappop(self._order)
            entry = self._chunks.get(key)
            if entry is not None and entry[1] == -use:
                del self._chunks[key]
                self.held_bytes -= entry[0].nbytes
                return True
        return False
