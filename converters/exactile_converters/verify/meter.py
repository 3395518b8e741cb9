"""Measure the progress of a verification in pixels that the network computes, which take most of the time."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with a stage's name, the work done and the total: of the stage, or of all stages."""


class Meter:
    """Reports to ``progress`` the current stage, and the share of all expected pixels that is done."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._stage = ""
        self._done_px = self._expected_px = 0

    def expect(self, pixels: int) -> None:
        """Expect this many more pixels."""
        self._expected_px += pixels

    def stage(self, name: str, _done: int = 0, _steps: int = 0) -> None:
        """Begin the stage ``name``; its progress is counted in pixels."""
        self._stage = name
        self._tell()

    def advance(self, pixels: int) -> None:
        """Count pixels as done; unexpected ones also add to the total."""
        self._done_px += pixels
        self._expected_px = max(self._expected_px, self._done_px)
        self._tell()

    def finish(self) -> None:
        """Count everything as done, including what turned out not to be needed."""
        self._done_px = self._expected_px
        self._tell()

    def _tell(self) -> None:
        if self._stage:
            self._progress(self._stage, self._done_px, self._expected_px)
