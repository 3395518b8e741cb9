"""Show progress of building engines: a bar on stderr, on a terminal only; notes always."""

from __future__ import annotations

from rich.console import Console
from rich.progress import TaskID

from exactile.request.progress import Bars
from exactile.request.stages import stage_bars


class BuildBar(Bars):
    """Implements ``exactile_converters.tensorrt_engine.monitor.BuildWatcher``."""

    def __init__(self, *, enabled: bool) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        super().__init__(stage_bars(self._console, enabled=enabled, transient=True))
        self._task: TaskID | None = None
        self._what = ""

    def started(self, what: str) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._what = what
        self._task = self._progress.add_task(what, total=None)

    def doing(self, step: str) -> None:
        if self._task is not None:
            self._progress.reset(self._task, total=None, description=f"{self._what}: {step}")

    def progress(self, share: float) -> None:
        if self._task is not None:
            self._progress.update(self._task, total=1.0, completed=share)

    def note(self, text: str) -> None:
        self._console.print(f"note: {text}", markup=False)
