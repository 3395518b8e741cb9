"""Many images with one engine: while the last tiles of one are computed, the next one is opened and read::

image 1   read ======== infer ========== write ==
image 2              open read ====|wait| infer ============= write ==
image 3                                             open read ===|wait| infer ...
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from exactile.errors import CancelledError
from exactile.image_run import ImageRun
from exactile.summary import Summary

OVERLAP_SHARE = 8
"""One in so many bytes of the memory budget is for what the image before still holds."""

Name = TypeVar("Name")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Generic[Name]):
    """What became of the image ``name``: a summary, an error, or neither where there was nothing to do."""

    name: Name
    summary: Summary | None = None
    error: Exception | None = None


@dataclass(slots=True)
class _Running(Generic[Name]):
    """One image under way, in a thread of its own."""

    name: Name
    prepare: Callable[[Name, Callable[[], None]], ImageRun | None]
    outcome: Outcome[Name] | None = None
    run: ImageRun | None = None
    stopped: BaseException | None = None
    may_follow: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread | None = None

    def start(self) -> None:
        self.thread = threading.Thread(target=self._work, name="exactile-image", daemon=True)
        self.thread.start()

    def cancel(self, cause: BaseException) -> None:
        """Stop the image, now or as soon as it is opened."""
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
        except Exception as error:  # noqa: BLE001 -- whatever it is, the other images go on
            self.outcome = Outcome(name=self.name, error=error)
        except BaseException:  # noqa: BLE001 -- the interrupt that cancelled it, which the caller raises
            self.outcome = Outcome(name=self.name, error=CancelledError("the run was stopped"))
        finally:
            self.may_follow.set()

    def _read(self) -> None:
        """The last tile was read: the next image may begin, if what this one still holds is little."""
        run = self.run
        if run is not None and run.afterwards is None and run.held_bytes <= run.planner.budget_bytes // OVERLAP_SHARE:
            self.may_follow.set()


def run_all(
    names: Iterable[Name], prepare: Callable[[Name, Callable[[], None]], ImageRun | None]
) -> Iterator[Outcome[Name]]:
    """Run the images in order, two at most at a time, and yield what became of each, in order.

    ``prepare`` opens one, in a thread of its own; the run is to call what it is given once the last tile was read. It
    returns None where nothing is to be done. KeyboardInterrupt stops what is under way, and is raised.
    """
    running: deque[_Running[Name]] = deque()
    try:
        for name in names:
            if len(running) == 2:
                yield _finished(running)
            if running:
                _wait(running[-1].may_follow)
            running.append(_Running(name, prepare))
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
    """Wait for the oldest image, and take it out."""
    first = running[0]
    assert first.thread is not None
    first.thread.join()
    running.popleft()
    assert first.outcome is not None
    return first.outcome


def _wait(event: threading.Event) -> None:
    while not event.wait(0.2):  # without a limit, some systems do not heed Ctrl-C here
        pass
