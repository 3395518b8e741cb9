"""The protocol between the pipeline and an engine."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray

from exactile.plan.position import Position
from exactile.plan.strips import StripPlace


class Engine(Protocol):
    """One network, for tiles of one fixed shape or for strips in order. Used from one thread."""

    def infer(
        self,
        tile: NDArray[Any],
        out: NDArray[Any],
        place: StripPlace | None = None,
        position: Position | None = None,
    ) -> None:
        """Run ``tile`` ((H, W, C), C-contiguous) and fill ``out`` ((H, W) or (C, H, W), C-contiguous).

        ``place`` is the strip and band; None for a tile. ``position`` is its position in the image, for graphs that
        take it (``exactile.contract.POSITION``); None for others.

        Raises EngineError; CancelledError after ``cancel``.
        """

    def cancel(self) -> None:
        """Make a running and every later ``infer`` stop soon; callable from any thread."""

    def close(self) -> None:
        """Release the engine; safe to call twice."""


@runtime_checkable
class OpensGraphs(Protocol):
    """An engine that opens graphs while it runs; ``opening_s`` are the seconds spent on that so far."""

    opening_s: float
