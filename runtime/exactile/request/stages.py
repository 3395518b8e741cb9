"""Progress of work in named stages; on stderr, and only on a terminal, or in a notebook."""

from __future__ import annotations

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from exactile.request.progress import Bars, is_watched

SPEED_PERIOD_S = 120
"""The time left is told by the speed of so many last seconds."""


def stage_bars(console: Console, *, enabled: bool, transient: bool = False) -> Progress:
    """Return bars of named stages: share done and time elapsed. ``transient`` bars vanish at the end."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not (enabled and is_watched(console)),
        transient=transient,
    )


class Stages(Bars):
    """One bar for each stage, in the order in which they begin."""

    def __init__(self, *, enabled: bool) -> None:
        super().__init__(stage_bars(Console(stderr=True), enabled=enabled))
        self._tasks: dict[str, TaskID] = {}

    def update(self, stage: str, done: int, steps: int) -> None:
        """Show ``done`` of ``steps`` of ``stage``."""
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage)
        self._progress.update(self._tasks[stage], completed=done, total=steps)


class StageBar(Bars):
    """One bar for all stages, named after that of the moment: share of the whole, time elapsed and time left."""

    def __init__(self, *, enabled: bool) -> None:
        console = Console(stderr=True)
        super().__init__(
            Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TaskProgressColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=console,
                disable=not (enabled and is_watched(console)),
                speed_estimate_period=SPEED_PERIOD_S,
            )
        )
        self._task = self._progress.add_task("", total=None)

    def update(self, stage: str, done: int, total: int) -> None:
        """``done`` of ``total`` of all stages are done, in ``stage`` at the moment."""
        self._progress.update(self._task, description=stage, completed=done, total=total)
