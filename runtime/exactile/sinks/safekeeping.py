"""What a run that goes on later is not to do again: noted in the journal box by box, brought to the disk meanwhile."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor

from exactile.geometry import Box
from exactile.sinks.journal import Journal, framed
from exactile.sinks.tile_store import TileStore

SYNC_SECONDS = 5.0
"""What a power cut may cost: done boxes are brought to the disk so often. A killed process loses none of them."""


class Safekeeping:
    """Notes tiles and pieces of tiles, and with the box that they belong to writes them down, in one write each.

    Used by one thread; owns a second one, which waits for the disk. Neither journal nor store are its own.
    """

    def __init__(self, journal: Journal, store: TileStore) -> None:
        self._journal, self._store = journal, store
        self._records: list[bytes] = []
        self._disk = ThreadPoolExecutor(1, "exactile-sync")
        self._syncing: Future[None] | None = None
        self._synced_s = time.monotonic()

    def note(self, record: bytes) -> None:
        """A tile or a piece of one, ``framed``; it counts with the next box that is ``safe``."""
        self._records.append(record)

    def safe(self, box: Box) -> None:
        """All that was noted and ``box`` need not be done again, even if the process ends now. Raises SinkError."""
        self._store.flush()
        self._journal.append([*self._records, framed(box)])
        self._records.clear()
        if time.monotonic() - self._synced_s >= SYNC_SECONDS and (self._syncing is None or self._syncing.done()):
            self.check()
            self._syncing = self._disk.submit(self._sync)
            self._synced_s = time.monotonic()

    def check(self) -> None:
        """Wait for what is being brought to the disk. Raises SinkError if the disk did not take it."""
        syncing, self._syncing = self._syncing, None
        if syncing is not None:
            syncing.result()

    def close(self) -> None:
        """Wait for the disk; what was noted for no box is dropped. Safe to call twice."""
        self._disk.shutdown()
        self._records.clear()

    def _sync(self) -> None:
        # What the journal gets meanwhile may reach the disk before its tiles; a later run looks at each of them.
        self._store.sync()
        self._journal.sync()
