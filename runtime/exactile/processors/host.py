"""A session on the CPU: one engine for each lane of a run, one run at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from exactile.contract import DeployedModel, Level
from exactile.contract.statistic import WHOLE_MAP
from exactile.engines.host_families import HostFamily, OnnxRuntimeFamily
from exactile.engines.lease import EngineLease, open_engine
from exactile.engines.protocol import Engine
from exactile.errors import EngineError
from exactile.kept_maps.store import MapStore
from exactile.pipeline.cancellation import Cancellation
from exactile.pipeline.host_compute import HostCompute
from exactile.pipeline.map_parts import PartsMade, PartsRead
from exactile.pipeline.partials_compute import PartialsCompute
from exactile.plan.budget import MemoryNeed
from exactile.plan.prediction import Plan
from exactile.plan.strips import StripPlan
from exactile.plan.tiles import TilePlan
from exactile.processors.protocol import Constants


class HostProcessor:
    """Implements ``Processor``. With ``keep`` the engine stays open for a run that needs the same.

    ``family`` chooses the engines (default: ONNX Runtime), ``reason`` says why nothing else computes, if something else
    was tried. Raises EngineError if onnxruntime is missing.
    """

    space = None

    def __init__(
        self,
        model: DeployedModel,
        *,
        threads: int | None,
        keep: bool,
        reason: str = "",
        family: HostFamily | None = None,
    ) -> None:
        self.family: HostFamily = family or OnnxRuntimeFamily()
        self._model, self._threads = model, threads
        self.reason = reason
        self.lease = EngineLease(self.family, model, threads=threads, keep=keep)

    @property
    def name(self) -> str:
        return f"cpu, {self.family.name}" + (f" ({self.reason})" if self.reason else "")

    @property
    def identity(self) -> Mapping[str, Any]:
        return self.family.identity

    def ready(self, plan: Plan, need: MemoryNeed, cancellation: Cancellation) -> None:
        """Do nothing: engines are opened on demand."""

    def compute(
        self,
        plan: Plan,
        need: MemoryNeed,
        constants: Constants,
        cancellation: Cancellation,
        maps: MapStore | None = None,
    ) -> HostCompute:
        lease = self.lease.engines(plan, need, constants).lane
        if maps is None:
            return HostCompute(plan, self._model.contract, lease, cancellation)
        parts = PartsRead(maps, self._model.reads, cancellation)
        return HostCompute(
            plan,
            self._model.contract,
            lease,
            cancellation,
            further=lambda step: parts.take(step.tile),
            ahead=lambda step: parts.ahead(step.tile),
        )

    @contextmanager
    def tile_engine(
        self, plan: TilePlan, need: MemoryNeed, constants: Constants, check: Callable[[], None]
    ) -> Iterator[Engine]:
        """Yield an engine for single tiles of ``plan``; no other is open meanwhile. Raises EngineError."""
        opened = partial(
            self.family.open_tiles,
            self._model,
            plan,
            activation_bytes=need.activation_bytes,
            constants=constants,
            threads=self._threads,
        )
        with self.lease.other(opened, check=check) as (engine, _seconds):
            yield engine

    def level_space(self, level: Level) -> None:
        """Return None: a CPU has no such limits."""

    def partials(
        self,
        level: Level,
        plan: TilePlan,
        need: MemoryNeed,
        constants: Constants,
        cancellation: Cancellation,
        maps: MapStore | None = None,
    ) -> PartialsCompute:
        if not isinstance(self.family, OnnxRuntimeFamily):
            raise EngineError(f"{self._model.contract.model_name}: {self.family.no_statistics}")
        opened = partial(
            self.family.open_tiles,
            level.model,
            plan,
            activation_bytes=need.activation_bytes,
            constants=constants,
            threads=self._threads,
        )
        read, made = None, None
        if maps is not None:
            maps.lay_out(level.model.writes, plan)
            read = PartsRead(maps, level.model.reads, cancellation)
            made = PartsMade(maps, level.model.writes, cancellation)
        return PartialsCompute(
            plan=plan,
            contract=level.model.contract,
            opening=lambda check: self.lease.other(opened, check=check),
            numbers=sum(statistic.numbers for statistic in level.statistics),
            told=any(statistic.grid != WHOLE_MAP for statistic in level.statistics),
            read=read,
            made=made,
        )

    def strip_engine(self, plan: StripPlan, need: MemoryNeed, constants: Constants) -> Engine:
        return open_engine(
            self.family,
            self._model,
            plan,
            activation_bytes=need.activation_bytes,
            constants=constants,
            threads=self._threads,
        )

    def close(self) -> None:
        """Close the engine that was kept."""
        self.lease.close()
