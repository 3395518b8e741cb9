"""A few threads that run tasks, with a few microseconds of interpreter time for each.

The some forty microseconds of ``concurrent.futures`` matter if thousands of tasks come in a second.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from exactile.threads.waited_thread import WaitedThread

Value = TypeVar("Value")


class Task(Generic[Value]):
    """A task and its outcome. Whoever runs it calls ``run`` once."""

    __slots__ = ("_error", "_running", "_value", "_work", "done")

    def __init__(self, work: Callable[[], Value]) -> None:
        self._work: Callable[[], Value] | None = work
        self._value: Value | None = None
        self._error: BaseException | None = None
        self.done = False
        self._running = threading.Lock()
        self._running.acquire()

    def run(self) -> None:
        """Run it, and release what it holds."""
        work, self._work = self._work, None
        assert work is not None
        try:
            self._value = work()
        except BaseException as error:  # noqa: BLE001 - carried to the thread that waits
            self._error = error
        del work
        self.done = True
        self._running.release()

    def result(self) -> Value:
        """Wait for it, in one thread; return its result. Raises its exception."""
        with self._running:
            if self._error is not None:
                raise self._error
            return self._value  # type: ignore[return-value]  # None only where that is the value


Tasks = SimpleQueue[Task[object] | None]


class Workers:
    """``count`` threads named ``name``, started as work comes. They end with ``close``, or with the last reference."""

    def __init__(self, count: int, name: str) -> None:
        self._count, self._name = count, name
        self._tasks: Tasks = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._closed = False
        weakref.finalize(self, _end, self._tasks, count)

    def submit(self, work: Callable[[], Value]) -> Task[Value]:
        """Run ``work`` as soon as a thread is free. Raises RuntimeError after ``close``."""
        task = Task(work)
        if not self.begin(task):
            raise RuntimeError(f"the threads {self._name} were closed")
        return task

    def begin(self, task: Task[Value]) -> bool:
        """Submit ``task``; return whether it will run, which is False after ``close``. Callable from any thread."""
        with self._lock:
            if self._closed:
                return False
            if len(self._threads) < self._count:
                self._start()
            self._tasks.put(task)  # type: ignore[arg-type]  # a task of anything
            return True

    def close(self, *, drop: bool = False) -> None:
        """Wait for begun tasks, or, with ``drop``, only for running ones; safe to call twice."""
        with self._lock:
            self._closed = True
            threads, self._threads = self._threads, []
            with suppress(Empty):
                while drop:
                    self._tasks.get_nowait()
            _end(self._tasks, len(threads))
        for thread in threads:
            thread.join()

    def _start(self) -> None:
        name = f"{self._name}_{len(self._threads)}"
        thread = WaitedThread(target=_serve, args=(self._tasks,), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()


def _serve(tasks: Tasks) -> None:
    while (task := tasks.get()) is not None:
        task.run()
        del task


def _end(tasks: Tasks, count: int) -> None:
    for _ in range(count):
        tasks.put(None)
