"""Report the progress of a build, and cancel it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from exactile.errors import CancelledError

Result = TypeVar("Result")


class BuildWatcher(Protocol):
    """Callbacks for engine builds. ``progress`` is called from other threads, too."""

    def started(self, what: str) -> None:
        """Begin work on an engine; ``what`` is for display ("fp16 tile 1024 x 1024")."""

    def doing(self, step: str) -> None:
        """Begin a step of the engine: "checking", "building"."""

    def progress(self, share: float) -> None:
        """Report how much of the building is done, 0 to 1."""

    def note(self, text: str) -> None:
        """Report something that the user should know but that is not an error."""


class SilentWatcher:
    """Ignores all callbacks."""

    def started(self, what: str) -> None: ...

    def doing(self, step: str) -> None: ...

    def progress(self, share: float) -> None: ...

    def note(self, text: str) -> None: ...


@dataclass(slots=True)
class _Phase:
    parent: str | None
    steps: int
    done: int = 0
    inner: float = 0.0
    """Share of the current step."""

    @property
    def share(self) -> float:
        return min(1.0, (self.done + self.inner) / max(1, self.steps))


class Phases:
    """TensorRT's nested phases as one share of the whole. Updated from any thread."""

    def __init__(self, progress: Callable[[float], None]) -> None:
        self._progress = progress
        self._phases: dict[str, _Phase] = {}
        self._most = 0.0
        self._lock = threading.Lock()

    def start(self, name: str, parent: str | None, steps: int) -> None:
        with self._lock:
            self._phases[name] = _Phase(parent, steps)

    def step(self, name: str, number: int) -> None:
        with self._lock:
            phase = self._phases.get(name)
            if phase is not None:
                phase.done, phase.inner = max(phase.done, number + 1), 0.0
                self._tell(phase)

    def finish(self, name: str) -> None:
        with self._lock:
            phase = self._phases.pop(name, None)
            if phase is not None:
                phase.done, phase.inner = max(1, phase.steps), 0.0
                self._tell(phase)

    def _tell(self, phase: _Phase) -> None:
        while phase.parent in self._phases:
            outer = self._phases[phase.parent or ""]
            outer.inner = phase.share
            phase = outer
        if phase.parent is None and phase.share > self._most:  # a repeated phase must not turn the bar back
            self._most = phase.share
            self._progress(phase.share)


class Cancellation:
    """A flag that a build checks after each of its steps."""

    def __init__(self) -> None:
        self._set = threading.Event()

    def cancel(self) -> None:
        self._set.set()

    @property
    def cancelled(self) -> bool:
        return self._set.is_set()


def progress_monitor(module: Any, phases: Phases, cancellation: Cancellation) -> Any:
    """Return a TensorRT progress monitor. Exceptions cannot pass through TensorRT: a failure stops the build."""

    class Monitor(module.IProgressMonitor):  # type: ignore[misc]  # known when the library is loaded
        def __init__(self) -> None:
            super().__init__()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            phases.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            try:
                phases.step(phase_name, step)
            except Exception:  # noqa: BLE001
                cancellation.cancel()
            return not cancellation.cancelled

        def phase_finish(self, phase_name: str) -> None:
            try:
                if not cancellation.cancelled:  # cancelled phases end, too, but are not done
                    phases.finish(phase_name)
            except Exception:  # noqa: BLE001
                cancellation.cancel()

    return Monitor()


def in_background(work: Callable[[], Result], cancellation: Cancellation) -> Result:
    """Run ``work`` in a thread, so that Ctrl-C reaches this one, cancels it, and waits for its end.

    Raises what ``work`` raises; KeyboardInterrupt after Ctrl-C.
    """
    outcome: list[Result] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:  # noqa: BLE001  # handed on below
            failure.append(error)

    thread = threading.Thread(target=run, name="exactile-build")
    thread.start()
    interrupt = _wait(thread, cancellation)
    if interrupt is not None:
        raise interrupt
    if failure:
        raise failure[0]
    if not outcome:
        raise CancelledError("the build ended without a result")
    return outcome[0]


def _wait(thread: threading.Thread, cancellation: Cancellation) -> KeyboardInterrupt | None:
    interrupt = None
    while thread.is_alive():
        try:
            thread.join(0.1)
        except KeyboardInterrupt as error:
            interrupt = error
            cancellation.cancel()
    return interrupt
