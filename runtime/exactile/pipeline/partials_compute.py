"""Compute partial statistics of tiles on the CPU."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.contract import Contract
from exactile.contract.statistic import ZONE
from exactile.engines.onnx_runtime import OnnxRuntimeEngine
from exactile.pipeline.compute import Free, Load
from exactile.pipeline.host_compute import TRACK, staging_buffers
from exactile.pipeline.map_parts import Made, PartsMade, PartsRead
from exactile.pipeline.timing import INFER, TimeSpan
from exactile.plan.position import position_of
from exactile.plan.tiles import Step, TilePlan
from exactile.plan.zones import zone_of

Open = Callable[[Callable[[], None]], AbstractContextManager[tuple[OnnxRuntimeEngine, float]]]
"""Waits for the CPU, calling its argument meanwhile; yields an engine and the seconds that opening it took."""


@dataclass(slots=True, kw_only=True)
class PartialsCompute:
    """Implements ``Compute`` for a plan whose results are ``numbers`` partial statistics for each tile."""

    plan: TilePlan
    contract: Contract
    opening: Open
    numbers: int
    told: bool = False
    """Graphs take the position of their tile, whether operators of the network depend on it or not."""
    read: PartsRead | None = None
    made: PartsMade | None = None
    lanes: int = 1
    batch: int = 1

    @contextmanager
    def staging(self, loads: int) -> Iterator[Sequence[NDArray[Any]]]:
        yield staging_buffers(self.plan, self.contract.image, loads)

    @contextmanager
    def lane(self, _index: int, *, free: Free, check: Callable[[], None]) -> Iterator[PartialsLane]:
        with self.opening(check) as (engine, opening_s):
            yield PartialsLane(self, engine, free, opening_s)

    def read_ahead(self, step: Step) -> TimeSpan | None:
        """Implements ``ReadsAhead``."""
        return self.read.ahead(step.tile) if self.read is not None else None

    def close(self) -> None:
        """Nothing to close: the lane's thread closed the engine, and buffers belong to ``MapStore``."""


@dataclass(slots=True)
class PartialsLane:
    """Implements ``Lane``: a load is computed when ``start`` returns."""

    compute: PartialsCompute
    engine: OnnxRuntimeEngine
    free: Free
    opening_s: float

    def start(self, load: Load) -> PartialsTicket:
        assert load.staged is not None
        compute, plan = self.compute, self.compute.plan
        (step,) = load.steps
        zone = zone_of(plan, step)
        read = compute.read.take(step.tile) if compute.read is not None else {}
        made = compute.made.take(step.tile, zone) if compute.made is not None else None
        begin = time.perf_counter()
        shape = (*step.tile.shape, compute.contract.image.channels)
        found: NDArray[Any] = np.empty(compute.numbers, np.float64)
        self.engine.infer(
            load.staged[: prod(shape)].reshape(shape),
            found,
            position=position_of(plan.y.domain, plan.x.domain, step.tile) if plan.placed or compute.told else None,
            inputs={ZONE: zone, **read},
            outputs=made.arrays if made is not None else {},
        )
        if made is not None:
            made.keep()
        end = time.perf_counter()
        self.free(load.staged)
        return PartialsTicket(found, TimeSpan(TRACK, INFER, begin, end), made)

    def cancel(self) -> None:
        self.engine.cancel()


@dataclass(slots=True)
class PartialsTicket:
    """Implements ``Ticket``: the writing thread puts parts of kept maps into their files."""

    found: NDArray[Any]
    inferred: TimeSpan
    made: Made | None
    _written: TimeSpan | None = None

    def results(self) -> Sequence[NDArray[Any]]:
        """Return the partial statistics. Raises SinkError if a part cannot be written."""
        self._written = self.made.write() if self.made is not None else None
        return (self.found,)

    def spans(self) -> Sequence[TimeSpan]:
        return (self.inferred,) if self._written is None else (self.inferred, self._written)

    def release(self) -> None:
        """Nothing to release: buffers were returned when they were written."""
