"""A pool of threads in which chunks are decoded; the decoders release the interpreter's lock."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import TypeVar

from exactile.errors import OptionError
from exactile.threads.workers import Workers

Item = TypeVar("Item")


class DecodePool:
    """``workers`` threads, including the calling one (default: as many as the process may use, at most 16).

    Owns its threads. Raises OptionError for fewer than one worker.
    """

    def __init__(self, workers: int | None = None) -> None:
        if workers is None:
            workers = min(16, len(os.sched_getaffinity(0)))
        if workers < 1:
            raise OptionError(f"workers is {workers}, but at least one thread must decode")
        self.workers = workers
        self._helpers = Workers(workers - 1, "exactile-decode")

    def for_each(self, work: Callable[[Item], None], items: Iterable[Item], *, most: int | None = None) -> None:
        """Call ``work`` for every item, in several threads (``most``, if given), and return when all are done.

        The first exception is raised here once every thread has stopped; items not begun by then are skipped.
        """
        # Each thread takes the next item itself: one submission a thread rather than one an item.
        waiting = deque(items)
        failures: list[BaseException] = []
        failed = threading.Event()

        def drain() -> None:
            while not failed.is_set():
                try:
                    item = waiting.popleft()
                except IndexError:
                    return
                try:
                    work(item)
                except BaseException as error:  # noqa: BLE001 - carried to the caller's thread
                    failures.append(error)
                    failed.set()

        helpers = min(most or self.workers, self.workers, len(waiting)) - 1
        tasks = [self._helpers.submit(drain) for _ in range(helpers)]
        drain()
        for task in tasks:
            task.result()
        if failures:
            raise failures[0]

    def close(self) -> None:
        """Stop the threads; safe to call twice."""
        self._helpers.close()
