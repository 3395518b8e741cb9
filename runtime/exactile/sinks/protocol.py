"""The seam between the pipeline and wherever results go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from exactile.geometry import Box, Span


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultSpec:
    """The whole result: ``(height, width)`` when ``channels`` is 0, else ``(channels, height, width)``."""

    height: int
    width: int
    channels: int
    dtype: str

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.channels, self.height, self.width) if self.channels else (self.height, self.width)


@dataclass(frozen=True, slots=True, kw_only=True)
class WritePlan:
    """Every write a run will make: all boxes ``rows x columns``, row by row; together they partition the result."""

    rows: Sequence[Span]
    columns: Sequence[Span]


class Sink(Protocol):
    """Takes disjoint boxes in any order. The result appears under its name only in ``finish``."""

    def buffer_bytes(self, spec: ResultSpec, plan: WritePlan) -> int:
        """The most bytes of memory that this sink will hold for ``plan``."""

    def begin(self, spec: ResultSpec) -> None:
        """Check that the output may be written, and start it."""

    def write(self, box: Box, block: NDArray[Any]) -> None:
        """Take ``block``, the pixels of ``box`` ((H, W) or (C, H, W)); copied before this returns."""

    def finish(self) -> None:
        """Complete the output and give it its name. Raises SinkError if a pixel was never written."""

    def abort(self) -> None:
        """Leave nothing behind; safe to call at any time, also twice."""
