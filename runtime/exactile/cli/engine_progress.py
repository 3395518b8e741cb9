"""Progress of building engines: a bar on stderr, on a terminal alone; notes always."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn


class BuildBar:
    """Implements ``exactile_converters.tensorrt_engine.monitor.BuildWatcher``."""

    def __init__(self, *, enabled: bool) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            console=self._console,
            disable=not (enabled and self._console.is_terminal),
            transient=True,
        )
        self._task: TaskID | None = None
        self._what = ""

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()

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
