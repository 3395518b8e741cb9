"""Children that each try one case at a time, within bounds of time and memory; whatever breaks them is a failure."""

from __future__ import annotations

import multiprocessing
import queue
import threading
import time
from collections.abc import Iterable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Self

import psutil

from fuzz.outcome import Outcome
from fuzz.recipe import Recipe
from fuzz.trial import prepare_child, try_recipe

CHILD_DEADLINE_S = 60.0
"""Seconds for the case with its making and judging: then the child is killed."""

CHILD_MOST_BYTES = 3 << 30
"""Resident memory of a child, judging and libraries included: beyond, it is killed."""

_CONTEXT = multiprocessing.get_context("spawn")


def _serve(connection: Connection, folder: Path) -> None:
    """Serve recipes in a child: a recipe in, an outcome out."""
    prepare_child()
    connection.send(None)
    while (recipe := connection.recv()) is not None:
        connection.send(try_recipe(recipe, folder))


class Child:
    """One process, replaced when a case has broken it. Owns it; a context manager."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._process: BaseProcess | None = None
        self._connection: Connection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._kill()

    def run(self, recipe: Recipe) -> Outcome:
        """Try one case."""
        connection, process = self._alive()
        connection.send(recipe)
        deadline = time.monotonic() + CHILD_DEADLINE_S
        try:
            while not connection.poll(0.1):
                broken = self._beyond_bounds(process, deadline)
                if broken:
                    self._kill()
                    return Outcome(verdict="failure", detail=broken)
            found = connection.recv()
        except (EOFError, OSError):
            process.join(5)
            detail = f"the process died with status {process.exitcode}"
            self._kill()
            return Outcome(verdict="failure", detail=detail)
        return found if isinstance(found, Outcome) else Outcome(verdict="failure", detail=f"no outcome: {found!r}")

    def _alive(self) -> tuple[Connection, BaseProcess]:
        if self._process is not None and self._connection is not None:
            return self._connection, self._process
        ours, theirs = _CONTEXT.Pipe()
        process = _CONTEXT.Process(target=_serve, args=(theirs, self._folder), daemon=True)
        process.start()
        theirs.close()
        ours.recv()
        self._connection, self._process = ours, process
        return ours, process

    @staticmethod
    def _beyond_bounds(process: BaseProcess, deadline: float) -> str | None:
        if time.monotonic() > deadline:
            return f"not finished after {CHILD_DEADLINE_S:.0f} s; the process was killed"
        try:
            resident = psutil.Process(process.pid).memory_info().rss
        except psutil.NoSuchProcess:
            return None
        if resident > CHILD_MOST_BYTES:
            return f"{resident >> 20} MiB resident; the process was killed"
        return None

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
        if self._connection is not None:
            self._connection.close()
        self._process = self._connection = None


def try_all(recipes: Iterable[Recipe], folder: Path, *, children: int = 2) -> Iterator[tuple[Recipe, Outcome]]:
    """Try every recipe in a pool of children; yield outcomes as they come. ``folder`` holds what they share."""
    waiting: queue.SimpleQueue[Recipe] = queue.SimpleQueue()
    count = 0
    for recipe in recipes:
        waiting.put(recipe)
        count += 1
    done: queue.SimpleQueue[tuple[Recipe, Outcome] | BaseException] = queue.SimpleQueue()

    def drain(number: int) -> None:
        try:
            with Child(folder / f"child-{number}") as child:
                while True:
                    recipe = waiting.get_nowait()
                    done.put((recipe, child.run(recipe)))
        except queue.Empty:
            return
        except BaseException as error:  # noqa: BLE001 - carried to the caller's thread
            done.put(error)

    threads = [threading.Thread(target=drain, args=(number,), daemon=True) for number in range(children)]
    for thread in threads:
        thread.start()
    for _ in range(count):
        found = done.get()
        if isinstance(found, BaseException):
            raise found
        yield found
    for thread in threads:
        thread.join()
