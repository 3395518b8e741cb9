"""A session on the CPU: ONNX Runtime, one engine for each lane of a run, one run at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from exactile.contract import DeployedModel, Level
from exactile.engines.lease import EngineLease, open_engine, open_tile_engine
from exactile.engines.onnx_runtime import OnnxRuntimeEngine, load_library
from exactile.engines.protocol import Engine
from exactile.passes.compute import PartialsCompute
from exactile.passes.parts import PartsMade, PartsRead
from exactile.passes.statistic import WHOLE_MAP
from exactile.passes.store import MapStore
from exactile.pipeline.cancellation import Cancellation
from exactile.pipeline.host_compute import HostCompute
from exactile.plan.budget import MemoryNeed
from exactile.plan.prediction import Plan
from exactile.plan.strips import StripPlan
from exactile.plan.tiles import TilePlan
from exactile.processors.protocol import Constants


class HostProcessor:
    """Implements ``Processor``. With ``keep`` the engine stays open for a run that needs the same.

    ``reason`` says why nothing else computes, where something else was tried.
    """

    space = None

    def __init__(self, model: DeployedModel, *, threads: int | None, keep: bool, reason: str = "") -> None:
        self._version = load_library().__version__
        self._model, self._threads = model, threads
        self.reason = reason
        self.lease = EngineLease(model, threads=threads, keep=keep)

    @property
    def name(self) -> str:
        return f"cpu, onnxruntime {self._version}" + (f" ({self.reason})" if self.reason else "")

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"onnxruntime": self._version}

    def ready(self, plan: Plan, need: MemoryNeed, cancellation: Cancellation) -> None:
        """Engines are opened when they are wanted."""

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
    ) -> Iterator[OnnxRuntimeEngine]:
        """An engine for single tiles of ``plan``; no other is open meanwhile. Raises EngineError."""
        with self.lease.other(self._opening(self._model, plan, need, constants), check=check) as (engine, _seconds):
            yield engine

    def _opening(
        self, model: DeployedModel, plan: TilePlan, need: MemoryNeed, constants: Constants
    ) -> Callable[[], OnnxRuntimeEngine]:
        return partial(
            open_tile_engine,
            model,
            plan,
            activation_bytes=need.activation_bytes,
            constants=constants,
            threads=self._threads,
        )

    def level_space(self, level: Level) -> None:
        """A CPU has none."""

    def partials(
        self,
        level: Level,
        plan: TilePlan,
        need: MemoryNeed,
        constants: Constants,
        cancellation: Cancellation,
        maps: MapStore | None = None,
    ) -> PartialsCompute:
        opened = self._opening(level.model, plan, need, constants)
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
            self._model, plan, activation_bytes=need.activation_bytes, constants=constants, threads=self._threads
        )

    def close(self) -> None:
        """Close the engine that was kept."""
        self.lease.close()
