"""The seam between the pipeline and whatever multiplies matrices."""

from __future__ import annotations

from typing import Any, Protocol

from numpy.typing import NDArray


class Engine(Protocol):
    """One network at one fixed tile shape. Used from one thread."""

    def infer(self, tile: NDArray[Any], out: NDArray[Any]) -> None:
        """Run ``tile`` ((H, W, C), C-contiguous) and fill ``out`` ((H, W) or (C, H, W), C-contiguous).

        Raises EngineError; CancelledError after ``cancel``.
        """

    def cancel(self) -> None:
        """Make a running and every later ``infer`` stop soon; callable from any thread."""

    def close(self) -> None:
        """Release the engine; safe to call twice."""
