"""Tiles on their way from raw to stored: a small pool that encodes, and an order that is kept."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from numpy.typing import NDArray

from exactile.errors import SinkError
from exactile.sinks.tile_codec import Encoder
from exactile.sinks.tile_store import TileKey


def queue_tiles(workers: int) -> int:
    """Most tiles in a queue: one in every worker's hands, one waiting for each, and two to hand over."""
    return 2 * workers + 2


class EncodeQueue:
    """Encodes in ``workers`` threads and calls ``deliver(key, encoded)`` in the order of submission.

    ``deliver`` runs in the thread that calls ``submit`` or ``drain``, so that equal runs give equal files.
    Holds at most ``queue_tiles(workers)`` tiles: ``submit`` waits when the pool falls behind. Owns the threads.
    """

    def __init__(
        self, encode: Encoder, deliver: Callable[[TileKey, bytes | memoryview], None], *, workers: int
    ) -> None:
        self._encode = encode
        self._deliver = deliver
        self._limit = queue_tiles(workers)
        self._pending: deque[tuple[TileKey, Future[bytes | memoryview]]] = deque()
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="exactile-encode")

    def submit(self, key: TileKey, tile: NDArray[Any]) -> None:
        """Queue ``tile``, which must not change any more. Raises SinkError if an earlier tile failed."""
        while self._pending and (len(self._pending) >= self._limit or self._pending[0][1].done()):
            self._deliver_first()
        self._pending.append((key, self._pool.submit(self._encode, tile)))

    def drain(self) -> None:
        """Wait until every tile is delivered. Raises SinkError if one failed."""
        while self._pending:
            self._deliver_first()

    def close(self) -> None:
        """Drop what is queued, wait for what is being encoded; safe to call twice."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._pending.clear()

    def _deliver_first(self) -> None:
        key, future = self._pending.popleft()
        try:
            encoded = future.result()
        except Exception as error:  # whatever a codec raises
            raise SinkError(f"a tile of the output could not be compressed: {error!r}") from error
        self._deliver(key, encoded)
