"""A thread that can be waited for after Ctrl-C."""

from __future__ import annotations

import threading


class WaitedThread(threading.Thread):
    """A thread whose ``join`` may be interrupted, and called again.

    Before Python 3.13, KeyboardInterrupt in ``threading.Thread.join`` marks a thread that still runs as ended: later
    calls of ``join`` return at once, and what the thread uses is closed under it.
    """

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]  # those of threading.Thread
        self._work_ended = threading.Event()

    def run(self) -> None:
        try:
            super().run()
        finally:
            self._work_ended.set()

    def join(self, timeout: float | None = None) -> None:
        """Wait as ``threading.Thread`` does."""
        if self.ident is None or threading.current_thread() is self or self._work_ended.wait(timeout):
            super().join()
