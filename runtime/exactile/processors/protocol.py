"""The protocol between a session and what it computes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from exactile.contract import Level
from exactile.contract.built_engine import BuiltEngine
from exactile.engines.protocol import Engine
from exactile.kept_maps.store import MapStore
from exactile.pipeline.cancellation import Cancellation
from exactile.pipeline.compute import Compute
from exactile.plan.budget import MemoryNeed
from exactile.plan.prediction import Plan
from exactile.plan.strips import StripPlan
from exactile.plan.tiles import TilePlan

Constants = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSpace:
    """The limits of GPUs for a plan. The runtime's own buffers and the network must fit into ``memory_bytes`` of each.

    ``slots`` loads are in flight on each of ``devices``. If ``engines`` is not None, only the shapes that these were
    built for can run; their activations are known only when they are opened.
    """

    devices: int
    slots: int
    memory_bytes: int
    engines: tuple[BuiltEngine, ...] | None


class Processor(Protocol):
    """What a session computes on. Owned by the session."""

    @property
    def name(self) -> str:
        """Name for people: ``cpu``, or the GPUs and the engine."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What determines the last digits of results, as plain data."""

    @property
    def space(self) -> DeviceSpace | None:
        """The limits of GPUs for a plan; None on a CPU."""

    def ready(self, plan: Plan, need: MemoryNeed, cancellation: Cancellation) -> None:
        """Open what ``plan`` needs, if that can fail for lack of memory. Raises DeviceMemoryError, EngineError."""

    def compute(
        self,
        plan: Plan,
        need: MemoryNeed,
        constants: Constants,
        cancellation: Cancellation,
        maps: MapStore | None = None,
    ) -> Compute:
        """Return what computes one run of ``plan``, with ``maps`` if the model reads them."""

    def level_space(self, level: Level) -> DeviceSpace | None:
        """Return ``space`` for a pass that finds statistics."""

    def partials(
        self,
        level: Level,
        plan: TilePlan,
        need: MemoryNeed,
        constants: Constants,
        cancellation: Cancellation,
        maps: MapStore | None = None,
    ) -> Compute:
        """Return what computes partial statistics of one pass over an image. Raises DeviceMemoryError, EngineError."""

    def strip_engine(self, plan: StripPlan, need: MemoryNeed, constants: Constants) -> Engine:
        """Return an engine for single strips; owned by the caller. Raises EngineError."""

    def close(self) -> None:
        """Release what is kept for further runs; safe to call twice."""
