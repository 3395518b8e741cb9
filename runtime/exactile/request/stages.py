"""Progress of work in named stages; on stderr, and only on a terminal, or in a notebook."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn

from exactile.request.progress import Bars, is_watched


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
