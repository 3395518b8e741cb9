"""What is open on a GPU, and how all of it is closed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from enum import IntEnum
from typing import Protocol

from exactile.cuda.current import Context, Current
from exactile.cuda.protocol import DeviceInfo
from exactile.errors import DeviceError


class Kind(IntEnum):
    """Of things that are made on a GPU, in the order in which a device closes them."""

    REPLAY = 0
    STREAM = 1
    EVENT = 2
    MEMORY = 3


class Closable(Protocol):
    """Something made on a GPU. ``close`` calls ``Scope.release``."""

    def close(self) -> None: ...


class Scope:
    """A GPU's context and everything made in it that is still open. Shared by the device and by what is made on it."""

    def __init__(self, info: DeviceInfo, context: Context, current: Current) -> None:
        self._label = f"GPU {info.ordinal} ({info.name})"
        self._context = context
        self._current = current
        self._lock = threading.Lock()
        self._open: dict[Closable, Kind] = {}
        self._closed = False

    @property
    def label(self) -> str:
        """The GPU, for messages."""
        return self._label

    def current(self) -> AbstractContextManager[None]:
        """Make the context current in this thread. Raises DeviceError, also if the device is closed."""
        if self._closed:
            raise DeviceError(f"{self._label} was closed")
        return self._current.entered(self._context)

    def require_current(self) -> None:
        """Raise DeviceError unless this thread is inside ``current()``."""
        if self._closed or not self._current.is_entered(self._context):
            state = "was closed" if self._closed else "is not current in this thread: use 'with device.current():'"
            raise DeviceError(f"{self._label} {state}")

    def own(self, thing: Closable, kind: Kind) -> None:
        """From now on the device closes ``thing`` if nobody else does."""
        with self._lock:
            self._open[thing] = kind

    def require(self, thing: Closable) -> None:
        """Raise DeviceError if ``thing`` was closed."""
        if thing not in self._open:
            kind = type(thing).__name__.removeprefix("Pycuda").removeprefix("Bindings")
            raise DeviceError(f"{kind} on {self._label} is used after it was closed")

    def use(self, thing: Closable) -> None:
        """Raise DeviceError unless ``thing`` is open and its context current in this thread."""
        self.require(thing)
        self.require_current()

    def release(self, thing: Closable, free: Callable[[], None]) -> None:
        """Call ``free``, in the context, if ``thing`` is still open. Raises DeviceError; it counts as closed then.

        Only where the context cannot be entered it stays open.
        """
        if thing not in self._open:
            return
        with self.current():
            with self._lock:
                kind = self._open.pop(thing, None)
            if kind is not None:
                free()

    def close(self) -> None:
        """Wait for all work, close everything, give the context back.

        Continues after a failure, and raises the first one at the end.
        """
        if self._closed:
            return
        failures: list[DeviceError] = []
        _attempt(self._synchronize, failures)
        for _ in range(2):  # again what could not be reached for the first time
            for thing in self._in_order():
                _attempt(thing.close, failures)
        self._closed = True
        _attempt(self._context.release, failures)
        if failures:
            for failure in failures[1:]:
                failures[0].add_note(str(failure))
            raise failures[0]

    def _synchronize(self) -> None:
        with self.current():
            self._context.synchronize()

    def _in_order(self) -> list[Closable]:
        """By kind; what was made last first."""
        with self._lock:
            newest_first = list(reversed(self._open.items()))
        return [thing for thing, _ in sorted(newest_first, key=lambda item: item[1])]


def _attempt(step: Callable[[], None], failures: list[DeviceError]) -> None:
    try:
        step()
    except DeviceError as error:
        failures.append(error)
