"""The progress bar: share done, rate, time left; on stderr, and only on a terminal, or in a notebook."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from exactile.plan.prediction import Plan
from exactile.runs.image_run import Watcher


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        if (task.total or 0) < 1e4:  # images, not pixels
            return Text("")
        return Text("  -.-- Mpx/s" if speed is None else f"{speed / 1e6:6.2f} Mpx/s")


def is_watched(console: Console) -> bool:
    """Return whether somebody sees bars: on a terminal, or in a notebook with the packages to draw them."""
    return console.is_terminal or (console.is_jupyter and find_spec("ipywidgets") is not None)


def _bars(name: TextColumn, *, enabled: bool) -> Progress:
    """Return bars on stderr; none if that is neither a terminal nor a notebook."""
    console = Console(stderr=True)
    return Progress(
        name,
        BarColumn(),
        TaskProgressColumn(),
        _Rate(),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=console,
        disable=not (enabled and is_watched(console)),
        speed_estimate_period=120,
    )


class Bars:
    """Shows ``progress`` while it is entered."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()


class Bar(Bars):
    """A bar over the pixels of the result."""

    def __init__(self, name: str, *, enabled: bool) -> None:
        super().__init__(_bars(TextColumn(name, markup=False), enabled=enabled))
        self._measuring: TaskID | None = None
        self._task = self._progress.add_task("segment", total=None)

    def start(self, plan: Plan) -> None:
        height, width = plan.result_shape
        self._progress.update(self._task, total=height * width)

    def reach(self, pixels: int, total: int) -> None:
        """Show ``pixels`` of ``total`` of the result as done."""
        self._progress.update(self._task, completed=pixels, total=total)

    def measure(self, pixels: int, total: int) -> None:
        """Show ``pixels`` of ``total`` as read for statistics of the whole image."""
        if self._measuring is None:
            self._measuring = self._progress.add_task("statistics", total=total)
        self._progress.update(self._measuring, completed=pixels)
        if pixels >= total:
            self._progress.remove_task(self._measuring)
            self._measuring = None

    def advance(self, pixels: int) -> None:
        self._progress.update(self._task, advance=pixels)


class MeasuringBar(Bars):
    """One bar for all passes over all images for statistics."""

    def __init__(self, name: str, *, enabled: bool) -> None:
        super().__init__(_bars(TextColumn(name, markup=False), enabled=enabled))
        self._task = self._progress.add_task("measure", total=None)

    def update(self, pixels: int, total: int) -> None:
        """Show ``pixels`` of ``total`` as done."""
        self._progress.update(self._task, completed=pixels, total=total)


class ManyBars(Bars):
    """One bar for all images and one for each that is in progress."""

    def __init__(self, total: int, *, enabled: bool) -> None:
        super().__init__(_bars(TextColumn("{task.description}", markup=False), enabled=enabled))
        self._all = self._progress.add_task(f"0 of {total} images", total=total)
        self._total, self._done, self._failed = total, 0, 0
        self._tasks: dict[object, TaskID] = {}

    def watcher(self, image: Path | str, read: Callable[[], None]) -> Watcher:
        """Return a watcher that shows the progress of ``image``."""
        task = self._tasks[image] = self._progress.add_task(Path(image).name, total=None)

        def planned(plan: Plan) -> None:
            height, width = plan.result_shape
            self._progress.update(task, total=height * width)

        return Watcher(planned=planned, progress=lambda px: self._progress.update(task, advance=px), read=read)

    def done(self, image: Path | str, *, failed: bool) -> None:
        """Remove the bar of ``image``."""
        task = self._tasks.pop(image, None)
        if task is not None:
            self._progress.remove_task(task)
        self._done += 1
        self._failed += failed
        told = f"{self._done} of {self._total} images" + (f", {self._failed} failed" if self._failed else "")
        self._progress.update(self._all, completed=self._done, description=told)
