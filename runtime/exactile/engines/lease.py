"""Engines for the runs of a session: one for each lane of a run, of one run at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from exactile.contract import DeployedModel
from exactile.engines.onnx_runtime import OnnxRuntimeEngine
from exactile.engines.protocol import Engine
from exactile.engines.strip_engine import StripEngine
from exactile.engines.threads import threads_of_lane
from exactile.plan.prediction import Plan
from exactile.plan.strips import StripPlan
from exactile.plan.tiles import TilePlan

Constants = Mapping[str, NDArray[Any]]
_WAIT_S = 0.05


class EngineLease:
    """Opens engines for plans, of one run at a time; with ``keep`` the last stay open for a run that needs the same.

    A run holds an engine from its first tile to its last, so that strips of one image follow each other. Owns them.
    """

    def __init__(self, model: DeployedModel, *, threads: int | None, keep: bool) -> None:
        self._model = model
        self._threads = threads
        self._keep = keep
        self._free = threading.Condition()
        self._holder: object | None = None
        self._lanes_in = 0
        self._engines: dict[int, Engine] = {}
        self._key: tuple[Any, ...] = ()

    def engines(self, plan: Plan, *, activation_bytes: int, constants: Constants) -> RunEngines:
        """Those of one run of ``plan``; ``activation_bytes`` are for all of its lanes together."""
        return RunEngines(self, plan, activation_bytes, constants)

    @contextmanager
    def other(
        self, opened: Callable[[], OnnxRuntimeEngine], *, check: Callable[[], None]
    ) -> Iterator[tuple[OnnxRuntimeEngine, float]]:
        """What ``opened`` gives, and the seconds that this took; no other engine is open meanwhile.

        Waits, calling ``check``, until no other run has an engine. Raises EngineError.
        """
        with self.held(object(), check):
            self.drop()
            begin = time.perf_counter()
            engine = opened()
            try:
                yield engine, time.perf_counter() - begin
            finally:
                engine.close()

    @contextmanager
    def held(self, run: object, check: Callable[[], None]) -> Iterator[None]:
        """Until the last lane of ``run`` has left, no other run has an engine."""
        with self._free:
            while self._holder is not None and self._holder is not run:
                self._free.wait(_WAIT_S)
                check()
            self._holder = run
            self._lanes_in += 1
        try:
            yield
        finally:
            with self._free:
                self._lanes_in -= 1
                if not self._lanes_in:
                    self._holder = None
                    self._free.notify_all()

    def close(self) -> None:
        """Close the engines that were kept; safe to call twice. Not while a run holds one."""
        with self.held(object(), lambda: None):
            self.drop()

    def take(self, lane: int, plan: Plan, activation_bytes: int, constants: Constants) -> Engine:
        """The engine of a lane of the run that holds the lease. Raises EngineError."""
        shape = (plan.x.tile, plan.bands, plan.strips.key) if isinstance(plan, StripPlan) else plan.tile_shape
        values = tuple((name, constants[name].tobytes()) for name in sorted(constants))
        key = (type(plan), plan.placed, shape, plan.lanes, activation_bytes, values)
        with self._free:
            if key != self._key:
                self.drop()
                self._key = key
            known = self._engines.get(lane)
        if known is not None:
            return known
        engine = open_engine(
            self._model,
            plan,
            activation_bytes=activation_bytes,
            constants=constants,
            threads=threads_of_lane(self._threads, plan.lanes),
            lane=lane,
        )
        with self._free:
            self._engines[lane] = engine
        return engine

    def left(self, lane: int, *, failed: bool) -> None:
        """A lane of the run that holds the lease is done with its engine."""
        if failed or not self._keep:
            with self._free:
                engine = self._engines.pop(lane, None)
            if engine is not None:
                engine.close()

    def drop(self) -> None:
        """Close all engines, for who holds the lease."""
        with self._free:
            engines, self._engines = self._engines, {}
            self._key = ()
        for engine in engines.values():
            engine.close()


@dataclass(frozen=True, slots=True, eq=False)
class RunEngines:
    """Engines of one run, lent by ``lease``."""

    lease: EngineLease
    plan: Plan
    activation_bytes: int
    constants: Constants

    @contextmanager
    def lane(self, index: int, check: Callable[[], None]) -> Iterator[tuple[Engine, float]]:
        """The engine of a lane and the seconds that opening it took, 0 where it was open.

        Waits until no other run has engines; ``check`` is called meanwhile, and may raise. Raises EngineError.
        """
        with self.lease.held(self, check):
            begin = time.perf_counter()
            opened = self.lease.take(index, self.plan, self.activation_bytes, self.constants)
            try:
                yield opened, time.perf_counter() - begin
            except BaseException:
                self.lease.left(index, failed=True)
                raise
            self.lease.left(index, failed=False)


def open_engine(
    model: DeployedModel,
    plan: Plan,
    *,
    activation_bytes: int,
    constants: Constants,
    threads: int | None,
    lane: int | None = None,
) -> Engine:
    """The engine with ``threads`` that runs ``plan``, or a ``lane`` of it. Raises EngineError.

    ``activation_bytes`` are those of all engines that are open side by side: they share one region.
    """
    model = model.at(plan.geometry)
    if isinstance(plan, StripPlan):
        contract = model.contract
        return StripEngine(
            plan.strips,
            contract,
            band_width=plan.x.tile,
            bands=range(plan.bands) if lane is None else range(lane, plan.bands, plan.lanes),
            threads=threads,
            activation_bytes=activation_bytes,
            claims=model.claims,
            constants=constants,
        )
    return open_tile_engine(model, plan, activation_bytes=activation_bytes, constants=constants, threads=threads)


def open_tile_engine(
    model: DeployedModel, plan: TilePlan, *, activation_bytes: int, constants: Constants, threads: int | None
) -> OnnxRuntimeEngine:
    """The engine for tiles of ``plan``. Raises EngineError."""
    model = model.at(plan.geometry)
    contract = model.contract
    sizes = {
        name: size for one in model.reads for name, size in zip(one.names, one.sizes_at(plan.tile_shape), strict=True)
    }
    return OnnxRuntimeEngine(
        model.graph,
        dims=sizes,
        input_name=contract.image.name,
        output_name=contract.result.name,
        tile_shape=plan.tile_shape,
        threads=threads,
        activation_bytes=activation_bytes,
        weights=model.weights,
        claims=model.claims,
        constants=constants,
    )
