"""One token that stops every stage; the first failure is the one reported."""

from __future__ import annotations

import threading
from collections.abc import Callable

from exactile.errors import CancelledError


class Cancellation:
    """Set once, by the thread that fails first; wakes everyone who registered."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wake: list[Callable[[], None]] = []
        self.cause: BaseException | None = None

    @property
    def is_set(self) -> bool:
        return self.cause is not None

    def cancel(self, cause: BaseException) -> None:
        """Stop the run because of ``cause``; later causes are consequences and are dropped."""
        with self._lock:
            if self.cause is not None:
                return
            self.cause = cause
            wake = list(self._wake)
        for function in wake:
            function()

    def on_cancel(self, wake: Callable[[], None]) -> None:
        """Call ``wake`` when cancelled; at once if that has happened."""
        with self._lock:
            if self.cause is None:
                self._wake.append(wake)
                return
        wake()

    def forget(self, wake: Callable[[], None]) -> None:
        """Do not call ``wake`` any more: what it stops belongs to another run now."""
        with self._lock:
            if wake in self._wake:
                self._wake.remove(wake)

    def check(self) -> None:
        """Raise CancelledError once cancelled."""
        if self.cause is not None:
            raise CancelledError("the run was stopped")
