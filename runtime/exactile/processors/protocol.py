"""The seam between a session and what it computes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from exactile.built_engine import BuiltEngine
from exactile.contract import Level
from exactile.engines.protocol import Engine
from exactile.passes.store import MapStore
from exactile.pipeline.cancellation import Cancellation
from exactile.pipeline.compute import Compute
from exactile.plan.budget import MemoryNeed
from exactile.plan.prediction import Plan
from exactile.plan.strips import StripPlan
from exactile.plan.tiles import TilePlan

Constants = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSpace:
    """What GPUs allow a plan. The runtime's own buffers and the network must fit into ``memory_bytes`` of each.

    ``slots`` loads are under way on each of ``devices``. Where ``engines`` is not None, only the shapes that these were
    built for can run; what activations they need shows when they are opened.
    """

    devices: int
    slots: int
    memory_bytes: int
    engines: tuple[BuiltEngine, ...] | None


class Processor(Protocol):
    """What a session computes on. Owned by the session."""

    @property
    def name(self) -> str:
        """For people: ``cpu``, or the GPUs and the engine."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What of it decides about the last digits of results, as plain data."""

    @property
    def space(self) -> DeviceSpace | None:
        """What GPUs allow a plan; None on a CPU."""

    def ready(self, plan: Plan, need: MemoryNeed, cancellation: Cancellation) -> None:
        """Open what ``plan`` needs, where that can fail for want of memory. Raises DeviceMemoryError, EngineError."""

    def compute(
        self,
        plan: Plan,
        need: MemoryNeed,
        constants: Constants,
        cancellation: Cancellation,
        maps: MapStore | None = None,
    ) -> Compute:
        """Return what computes one run of ``plan``, from ``maps`` where the model reads such."""

    def level_space(self, level: Level) -> DeviceSpace | None:
        """As ``space``, for a pass that finds statistics."""

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
        """Return an engine for strips that are given one by one; owned by the caller. Raises EngineError."""

    def close(self) -> None:
        """Release what is kept for further runs; safe to call twice."""
