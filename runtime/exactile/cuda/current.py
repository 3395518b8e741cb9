"""Which context is current in which thread.

A thread has at most one of our contexts on the driver's stack. Entering another one takes the first off and, on the way
out, puts it back: each step then either happens or leaves everything as it was, also when the driver fails half-way.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from exactile.errors import DeviceError


class Context(Protocol):
    """The primary context of a GPU, of one binding. All raise DeviceError."""

    def push(self) -> None:
        """Make it current in this thread."""

    def pop(self) -> None:
        """Take it, which is current, off again. If it raises, it is still current."""

    def synchronize(self) -> None:
        """Wait for all work in it; it must be current."""

    def release(self) -> None:
        """Give it back to the driver; it must not be current in this thread."""


class _Thread(threading.local):
    def __init__(self) -> None:
        self.entered: list[Context] = []
        self.pushed: Context | None = None


class Current:
    """What is current in each thread, for all the GPUs of a binding."""

    def __init__(self) -> None:
        self._thread = _Thread()

    @contextmanager
    def entered(self, context: Context) -> Iterator[None]:
        """Yield ``context`` is current inside; may be nested. Raises DeviceError."""
        self._thread.entered.append(context)
        try:
            self._switch(context)
            yield
        except BaseException as failure:
            self._leave_after(failure)
            raise
        self._leave()

    def is_entered(self, context: Context) -> bool:
        """Return whether this thread is inside ``entered(context)``, and in no other one within that."""
        entered = self._thread.entered
        if not entered or entered[-1] is not context:
            return False
        self._switch(context)  # it may have failed to come back when another one was left
        return True

    def _leave(self) -> None:
        entered = self._thread.entered
        entered.pop()
        self._switch(entered[-1] if entered else None)

    def _leave_after(self, failure: BaseException) -> None:
        """The first failure is the one to report."""
        try:
            self._leave()
        except DeviceError as second:
            failure.add_note(str(second))

    def _switch(self, wanted: Context | None) -> None:
        thread = self._thread
        if thread.pushed is wanted:
            return
        if thread.pushed is not None:
            thread.pushed.pop()
            thread.pushed = None
        if wanted is not None:
            wanted.push()
            thread.pushed = wanted
