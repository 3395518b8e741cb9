"""The CPU computes partial statistics of tiles."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.contract import Contract, DeployedModel
from exactile.engines.onnx_runtime import OnnxRuntimeEngine
from exactile.passes.statistic import ZONE
from exactile.passes.store import MapStore
from exactile.passes.zones import zone_of
from exactile.pipeline.compute import Free, Load
from exactile.pipeline.host_compute import TRACK, HostTicket, staging_buffers
from exactile.pipeline.timing import INFER, TimeSpan
from exactile.plan.position import position_of
from exactile.plan.tiles import TilePlan

Open = Callable[[Callable[[], None]], AbstractContextManager[tuple[OnnxRuntimeEngine, float]]]
"""Waits for the CPU, calling what it is given meanwhile; an engine and the seconds that opening it took."""


@dataclass(slots=True, kw_only=True)
class PartialsCompute:
    """Implements ``Compute`` for a plan whose results are ``numbers`` partial statistics for each tile."""

    plan: TilePlan
    contract: Contract
    model: DeployedModel
    opening: Open
    numbers: int
    told: bool = False
    """Graphs are told where their tile lies, whether operators of the network depend on it or not."""
    maps: MapStore | None = None
    lanes: int = 1
    batch: int = 1

    @contextmanager
    def staging(self, loads: int) -> Iterator[Sequence[NDArray[Any]]]:
        yield staging_buffers(self.plan, self.contract.image, loads)

    @contextmanager
    def lane(self, _index: int, *, free: Free, check: Callable[[], None]) -> Iterator[PartialsLane]:
        with self.opening(check) as (engine, opening_s):
            yield PartialsLane(self, engine, free, opening_s)

    def close(self) -> None:
        """The engine was closed by the lane's thread."""


@dataclass(slots=True)
class PartialsLane:
    """Implements ``Lane``: a load is done when ``start`` returns."""

    compute: PartialsCompute
    engine: OnnxRuntimeEngine
    free: Free
    opening_s: float

    def start(self, load: Load) -> HostTicket:
        assert load.staged is not None
        plan = self.compute.plan
        (step,) = load.steps
        begin = time.perf_counter()
        shape = (*step.tile.shape, self.compute.contract.image.channels)
        found: NDArray[Any] = np.empty(self.compute.numbers, np.float64)
        model, maps, zone = self.compute.model, self.compute.maps, zone_of(plan, step)
        made = maps.parts(model.writes, step.tile, zone) if maps is not None else {}
        self.engine.infer(
            load.staged[: prod(shape)].reshape(shape),
            found,
            position=position_of(plan.y.domain, plan.x.domain, step.tile) if plan.placed or self.compute.told else None,
            inputs={ZONE: zone} | (maps.read(model.reads, step.tile) if maps is not None else {}),
            outputs=made,
        )
        if maps is not None:
            maps.write(model.writes, step.tile, zone, made)
        end = time.perf_counter()
        self.free(load.staged)
        return HostTicket(pixels=found, span=TimeSpan(TRACK, INFER, begin, end), done=lambda: None)

    def cancel(self) -> None:
        self.engine.cancel()
