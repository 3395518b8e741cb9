"""A small pool that encodes, and a queue that keeps the order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeVar

from exactile.errors import OptionError, SinkError
from exactile.threads.workers import Task, Workers

Done = TypeVar("Done")

MOST_WORKERS = 16
"""More threads than these would wait for the interpreter rather than compress."""

LEAST_WORKERS = 2
"""Number of workers that remain if memory is scarce, unless a number was requested."""


def encode_workers(asked: int | None) -> int:
    """Return ``asked``, or one for each core that the process may use, ``MOST_WORKERS`` at most.

    Raises OptionError for fewer than one.
    """
    workers = min(MOST_WORKERS, len(os.sched_getaffinity(0))) if asked is None else asked
    if workers < 1:
        raise OptionError(f"at least one thread has to compress, got workers={workers}")
    return workers


def queue_tiles(workers: int) -> int:
    """Return the most tiles in a queue: one per worker being encoded, one per worker waiting, and two to hand over."""
    return 2 * workers + 2


class _Entry(NamedTuple):
    """Work that counts as ``tiles`` tiles, and the receiver of its result."""

    task: Task[Any]
    deliver: Callable[[Any], None]
    tiles: int


class EncodeQueue:
    """Run work in ``workers`` threads and call ``deliver`` with each result, in the order of submission.

    ``deliver`` and marks are called in the thread that calls ``submit`` or ``drain``, so that equal runs give equal
    files. Holds work for ``queue_tiles(workers)`` tiles, or one larger piece: ``submit`` waits if the pool falls
    behind. Owns the threads.
    """

    def __init__(self, *, workers: int) -> None:
        self._limit = queue_tiles(workers)
        self._pending: deque[_Entry | Callable[[], None]] = deque()
        self._tiles = 0
        self._workers = Workers(workers, "exactile-encode")

    def submit(self, work: Callable[[], Done], deliver: Callable[[Done], None], *, tiles: int = 1) -> None:
        """Queue ``work``, which holds as much as ``tiles`` tiles. Raises SinkError if earlier work failed."""
        self._make_room()
        self._enter(self._workers.submit(work), deliver, tiles)

    def reserve(self, work: Callable[[], Done], deliver: Callable[[Done], None]) -> Callable[[], object]:
        """Reserve a place as ``submit`` for one tile, but start the work when the returned function is called, once,
        from any thread.

        Only work that was submitted earlier may call it: everything later waits for this.
        """
        self._make_room()
        task = Task(work)
        self._enter(task, deliver, 1)
        return partial(self._workers.begin, task)

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
        """Drop queued work, wait for running work; safe to call twice."""
        self._workers.close(drop=True)
        self._pending.clear()

    def _make_room(self) -> None:
        while self._pending and (self._tiles >= self._limit or self._first_is_done()):
            self._deliver_first()

    def _enter(self, task: Task[Any], deliver: Callable[[Any], None], tiles: int) -> None:
        self._pending.append(_Entry(task, deliver, tiles))
        self._tiles += tiles

    def _first_is_done(self) -> bool:
        first = self._pending[0]
        return not isinstance(first, _Entry) or first.task.done

    def _deliver_first(self) -> None:
        first = self._pending.popleft()
        if not isinstance(first, _Entry):
            first()
            return
        self._tiles -= first.tiles
        try:
            given = first.task.result()
        except SinkError:
            raise
        except Exception as error:  # whatever a codec raises
            raise SinkError(f"a tile of the output could not be compressed: {error!r}") from error
        first.deliver(given)
