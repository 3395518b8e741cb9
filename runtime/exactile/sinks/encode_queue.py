"""Tiles on their way from raw to stored: a small pool that encodes, and an order that is kept."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from numpy.typing import NDArray

from exactile.errors import SinkError
from exactile.sinks.tile_store import TileKey

Encode = Callable[[TileKey, NDArray[Any]], bytes | memoryview]


def queue_tiles(workers: int) -> int:
    """Most tiles in a queue: one in every worker's hands, one waiting for each, and two to hand over."""
    return 2 * workers + 2


class EncodeQueue:
    """Encodes in ``workers`` threads and calls ``deliver(key, encoded)`` in the order of submission.

    ``deliver`` and marks are called in the thread that calls ``submit`` or ``drain``, so that equal runs give equal
    files. Holds at most ``queue_tiles(workers)`` tiles: ``submit`` waits when the pool falls behind. Owns the threads.
    """

    def __init__(self, encode: Encode, deliver: Callable[[TileKey, bytes | memoryview], None], *, workers: int) -> None:
        self._encode = encode
        self._deliver = deliver
        self._limit = queue_tiles(workers)
        self._pending: deque[tuple[TileKey, Future[bytes | memoryview]] | Callable[[], None]] = deque()
        self._tiles = 0
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="exactile-encode")

    def submit(self, key: TileKey, tile: NDArray[Any]) -> None:
        """Queue ``tile``, which must not change any more. Raises SinkError if an earlier tile failed."""
        while self._pending and (self._tiles >= self._limit or self._first_is_done()):
            self._deliver_first()
        self._pending.append((key, self._pool.submit(self._encode, key, tile)))
        self._tiles += 1

    def mark(self, reached: Callable[[], None]) -> None:
        """Call ``reached`` once everything submitted so far is delivered."""
        self._pending.append(reached)
        while self._pending and self._first_is_done():
            self._deliver_first()

    def drain(self) -> None:
        """Wait until every tile is delivered. Raises SinkError if one failed."""
        while self._pending:
            self._deliver_first()

    def close(self) -> None:
        """Drop what is queued, wait for what is being encoded; safe to call twice."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._pending.clear()

    def _first_is_done(self) -> bool:
        first = self._pending[0]
        return callable(first) or first[1].done()

    def _deliver_first(self) -> None:
        first = self._pending.popleft()
        if callable(first):
            first()
            return
        key, future = first
        self._tiles -= 1
        try:
            encoded = future.result()
        except SinkError:
            raise
        except Exception as error:  # whatever a codec raises
            raise SinkError(f"a tile of the output could not be compressed: {error!r}") from error
        self._deliver(key, encoded)
