"""Make finished work safe for a later run: boxes are noted as they are finished, and claimed once a second.

::

    note, reached   a tile or a piece of one is ready; all of a box is
    commit          in its own thread: flush pixels to the disk, then append to the journal, then flush that
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor

from exactile.geometry import Box
from exactile.sinks.resume.journal import Journal, framed
from exactile.sinks.tiles.store import TileStore

COMMIT_SECONDS = 1.0
"""Seconds between claims of finished boxes: a killed process or a power cut may lose this much."""

MOST_NOTED_BYTES = 1 << 20
"""Noted bytes beyond this are written to the file before they are claimed."""


class Safekeeping:
    """Ensure that the journal never claims a box whose pixels are not on the disk.

    Used by one thread; owns a second one, which alone writes the journal and waits for the disk. Does not own journal
    and store.
    """

    def __init__(self, journal: Journal, store: TileStore) -> None:
        self._journal, self._store = journal, store
        self._records: list[bytes] = []
        self._records_bytes = 0
        self._boxes: list[Box] = []
        self._disk = ThreadPoolExecutor(1, "exactile-sync")
        self._writing: Future[None] | None = None
        self._asked = False
        self._committed_s = time.monotonic()
        self.kept = False
        """Whether the journal claims anything."""

    def note(self, record: bytes) -> None:
        """Note a tile or a piece of one, ``framed``. It counts with the boxes of the next ``commit``.
        Raises SinkError.
        """
        self._records.append(record)
        self._records_bytes += len(record)
        if self._records_bytes >= MOST_NOTED_BYTES:
            self._hand_over(())

    def reached(self, box: Box) -> None:
        """Note that all complete tiles of ``box`` are noted and flushed to the store."""
        self._boxes.append(box)

    def due(self, *, now: bool = False) -> bool:
        """Return whether the caller must call ``commit`` once everything until here is noted.

        Not while the disk is busy, unless ``now``. Raises SinkError if the disk did not accept earlier work.
        """
        if self._asked:
            return False
        if not now:
            if time.monotonic() - self._committed_s < COMMIT_SECONDS:
                return False
            if self._writing is not None and not self._writing.done():
                return False
        self.check()
        self._asked = True
        return True

    def commit(self) -> None:
        """Claim the boxes that were reached, whose incomplete tiles' pieces are noted."""
        self._hand_over(self._boxes)
        self._boxes = []
        self._asked, self._committed_s = False, time.monotonic()

    def check(self) -> None:
        """Wait for what is being flushed to the disk. Raises SinkError if the disk did not accept it."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def close(self) -> None:
        """Wait for the disk; what was not committed is dropped. Safe to call twice."""
        self._disk.shutdown()
        self._records.clear()

    def _hand_over(self, boxes: list[Box] | tuple[()]) -> None:
        self.check()
        records, self._records, self._records_bytes = self._records, [], 0
        self._writing = self._disk.submit(self._write, records, boxes)

    def _write(self, records: list[bytes], boxes: list[Box] | tuple[()]) -> None:
        if not boxes:
            self._journal.append(records)
            return
        self._store.sync()
        self._journal.append([*records, *map(framed, boxes)])
        self.kept = True
        self._journal.sync()
