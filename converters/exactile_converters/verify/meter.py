"""How much of a proof is done, in pixels that the network computes: that is what takes the time."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with a stage's name, and what is done and what there is to do: of the stage, or of all stages."""


class Meter:
    """Tells ``progress`` which share of all expected pixels is done, and the stage of the moment."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._stage = ""
        self._done_px = self._expected_px = 0

    def expect(self, pixels: int) -> None:
        """So many more are to be computed."""
        self._expected_px += pixels

    def stage(self, name: str, _done: int = 0, _steps: int = 0) -> None:
        """What follows belongs to the stage ``name``; how much of it is done, pixels tell."""
        self._stage = name
        self._tell()

    def advance(self, pixels: int) -> None:
        """So many are done; what was not expected belongs to both."""
        self._done_px += pixels
        self._expected_px = max(self._expected_px, self._done_px)
        self._tell()

    def finish(self) -> None:
        """All is done, also what turned out not to be needed."""
        self._done_px = self._expected_px
        self._tell()

    def _tell(self) -> None:
        if self._stage:
            self._progress(self._stage, self._done_px, self._expected_px)
