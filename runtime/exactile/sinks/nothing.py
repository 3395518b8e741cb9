"""A sink that discards results."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from exactile.geometry import Box
from exactile.sinks.protocol import ResultSpec, WritePlan


class NoSink:
    """A sink for results that are only returned, or merged."""

    def buffer_bytes(self, spec: ResultSpec, plan: WritePlan) -> int:  # noqa: ARG002 -- the seam's signature
        """Return 0: it holds nothing."""
        return 0

    def begin(self, spec: ResultSpec) -> None:
        """Nothing to begin."""

    def write(self, box: Box, block: NDArray[Any]) -> None:
        """Discard the block."""

    def finish(self) -> None:
        """Nothing to finish."""

    def abort(self) -> None:
        """Nothing to undo."""
