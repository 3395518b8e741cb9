"""Run many images with one engine: while the last tiles of one are computed, the next one is opened and read::

    image 1   read ======== infer ========== write ==
    image 2              open read ====|wait| infer ============= write ==
    image 3                                             open read ===|wait| infer ...

Small images run side by side: as many as there are engines, each with a share of the threads, and one more that is
read.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from exactile.errors import CancelledError
from exactile.runs.image_run import ImageRun
from exactile.runs.summary import Summary
from exactile.threads.waited_thread import WaitedThread

OVERLAP_SHARE = 8
"""The previous image may still hold this fraction of the memory budget (one in so many bytes)."""

MOST_SIDE_BY_SIDE = 4
"""Most images side by side. Two were measured to be faster (benchmarks/many_images); more were not measured."""

MANY = 10
"""For every so many images, one more runs side by side: the last ones have no others beside them, and
not all threads.
"""

Name = TypeVar("Name")


def worth_side_by_side(images: int) -> int:
    """Return how many of ``images`` small images to compute side by side."""
    return min(MOST_SIDE_BY_SIDE, max(1, images // MANY))


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Generic[Name]):
    """The outcome of the image ``name``: a summary, an error, or neither if there was nothing to do."""

    name: Name
    summary: Summary | None = None
    error: Exception | None = None


@dataclass(slots=True)
class _Running(Generic[Name]):
    """One image in progress, in its own thread."""

    name: Name
    prepare: Callable[[Name, Callable[[], None]], ImageRun | None]
    changed: threading.Event
    outcome: Outcome[Name] | None = None
    run: ImageRun | None = None
    stopped: BaseException | None = None
    may_follow: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread | None = None

    def start(self) -> None:
        self.thread = WaitedThread(target=self._work, name="exactile-image", daemon=True)
        self.thread.start()

    def cancel(self, cause: BaseException) -> None:
        """Stop the image, now or as soon as it has been opened."""
        self.stopped = cause
        if self.run is not None:
            self.run.cancellation.cancel(cause)

    def _work(self) -> None:
        try:
            self.run = self.prepare(self.name, self._read)
            if self.stopped is not None and self.run is not None:
                self.run.cancellation.cancel(self.stopped)
            summary = self.run.run() if self.run is not None else None
            self.outcome = Outcome(name=self.name, summary=summary)
        except Exception as error:  # noqa: BLE001 -- whatever it is, the other images continue
            self.outcome = Outcome(name=self.name, error=error)
        except BaseException:  # noqa: BLE001 -- the interrupt that cancelled it, which the caller raises
            self.outcome = Outcome(name=self.name, error=CancelledError("the run was stopped"))
        finally:
            self.may_follow.set()
            self.changed.set()

    def _read(self) -> None:
        """Begin the next image after the last tile was read, if this one still holds little memory."""
        run = self.run
        if run is not None and run.afterwards is None and run.held_bytes <= run.planner.budget_bytes // OVERLAP_SHARE:
            self.may_follow.set()
            self.changed.set()


def run_all(
    names: Iterable[Name], prepare: Callable[[Name, Callable[[], None]], ImageRun | None]
) -> Iterator[Outcome[Name]]:
    """Run the images in order, and yield the outcome of each, in order.

    One image more than run side by side is in progress, so usually two. ``prepare`` opens an image, in its own thread;
    the run must call its argument once the last tile was read. ``prepare`` returns None if there is nothing to do.
    KeyboardInterrupt stops the images in progress, and is raised.
    """
    running: deque[_Running[Name]] = deque()
    changed = threading.Event()
    try:
        for name in names:
            while running and not _another_may_start(running):
                if running[0].outcome is not None:
                    yield _finished(running)
                    continue
                changed.wait(0.2)  # without a timeout, some systems ignore Ctrl-C here
                changed.clear()
            running.append(_Running(name, prepare, changed))
            running[-1].start()
        while running:
            yield _finished(running)
    except BaseException as interrupt:
        for image in running:
            image.cancel(interrupt)
        for image in running:
            if image.thread is not None:
                image.thread.join()
        raise


def _finished(running: deque[_Running[Name]]) -> Outcome[Name]:
    """Wait for the oldest image, and remove it from the queue."""
    first = running[0]
    assert first.thread is not None
    first.thread.join()
    running.popleft()
    assert first.outcome is not None
    return first.outcome


def _another_may_start(running: deque[_Running[Name]]) -> bool:
    last = running[-1]
    return last.may_follow.is_set() and len(running) <= (last.run.beside if last.run is not None else 1)
