"""When a piece of work began and ended."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TimeSpan:
    """``work`` on a ``track`` (a thread, or a stream of a GPU), in seconds of ``time.perf_counter``."""

    track: str
    work: str
    begin_s: float
    end_s: float

    @property
    def seconds(self) -> float:
        return self.end_s - self.begin_s


INFER = "infer"
"""The name of a network's work."""
