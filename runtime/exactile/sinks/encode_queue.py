"""Work on the way to the output: a small pool that does it, and an order that is kept."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from exactile.errors import OptionError, SinkError

Done = TypeVar("Done")

MOST_WORKERS = 16
"""More threads than these would wait for the interpreter rather than compress."""


def encode_workers(asked: int | None) -> int:
    """``asked``, or one for each core that the process may use, ``MOST_WORKERS`` at most.

    Raises OptionError for fewer than one.
    """
    workers = min(MOST_WORKERS, len(os.sched_getaffinity(0))) if asked is None else asked
    if workers < 1:
        raise OptionError(f"at least one thread has to compress, got workers={workers}")
    return workers


def queue_tiles(workers: int) -> int:
    """Most tiles in a queue: one in every worker's hands, one waiting for each, and two to hand over."""
    return 2 * workers + 2


@dataclass(frozen=True, slots=True)
class _Entry:
    """Work that takes the room of ``tiles`` tiles, and who gets what it gives."""

    future: Future[Any]
    deliver: Callable[[Any], None]
    tiles: int


class EncodeQueue:
    """Works in ``workers`` threads and calls ``deliver`` with what each piece of work gave, in the order of submission.

    ``deliver`` and marks are called in the thread that calls ``submit`` or ``drain``, so that equal runs give equal
    files. Holds work for ``queue_tiles(workers)`` tiles, or one piece that is more: ``submit`` waits when the pool
    falls behind. Owns the threads.
    """

    def __init__(self, *, workers: int) -> None:
        self._limit = queue_tiles(workers)
        self._pending: deque[_Entry | Callable[[], None]] = deque()
        self._tiles = 0
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="exactile-encode")

    def submit(self, work: Callable[[], Done], deliver: Callable[[Done], None], *, tiles: int = 1) -> None:
        """Queue ``work``, which holds as much as ``tiles`` tiles. Raises SinkError if earlier work failed."""
        self._make_room()
        self._enter(self._pool.submit(work), deliver, tiles)

    def reserve(self, work: Callable[[], Done], deliver: Callable[[Done], None]) -> Callable[[], None]:
        """As ``submit`` for one tile, but it begins when what is returned is called, once, from any thread.

        Only work that was submitted before may call it: everything later waits for this.
        """
        self._make_room()
        future: Future[Done] = Future()
        self._enter(future, deliver, 1)

        def begin() -> None:
            with suppress(RuntimeError):  # the queue was closed: nobody waits
                self._pool.submit(_fulfil, future, work)

        return begin

    def mark(self, reached: Callable[[], None]) -> None:
        """Call ``reached`` once everything submitted so far is delivered."""
        self._pending.append(reached)
        while self._pending and self._first_is_done():
            self._deliver_first()

    def drain(self) -> None:
        """Wait until all work is delivered. Raises SinkError if some failed."""
        while self._pending:
            self._deliver_first()

    def close(self) -> None:
        """Drop what is queued, wait for what is being done; safe to call twice."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._pending.clear()

    def _make_room(self) -> None:
        while self._pending and (self._tiles >= self._limit or self._first_is_done()):
            self._deliver_first()

    def _enter(self, future: Future[Any], deliver: Callable[[Any], None], tiles: int) -> None:
        self._pending.append(_Entry(future, deliver, tiles))
        self._tiles += tiles

    def _first_is_done(self) -> bool:
        first = self._pending[0]
        return not isinstance(first, _Entry) or first.future.done()

    def _deliver_first(self) -> None:
        first = self._pending.popleft()
        if not isinstance(first, _Entry):
            first()
            return
        self._tiles -= first.tiles
        try:
            given = first.future.result()
        except SinkError:
            raise
        except Exception as error:  # whatever a codec raises
            raise SinkError(f"a tile of the output could not be compressed: {error!r}") from error
        first.deliver(given)


def _fulfil(future: Future[Done], work: Callable[[], Done]) -> None:
    try:
        future.set_result(work())
    except BaseException as error:  # noqa: BLE001 - carried to the thread that waits for it
        future.set_exception(error)
