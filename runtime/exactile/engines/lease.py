"""One engine at a time for the runs of a session."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from numpy.typing import NDArray

from exactile.contract import DeployedModel
from exactile.engines.onnx_runtime import OnnxRuntimeEngine
from exactile.engines.protocol import Engine
from exactile.engines.strip_engine import StripEngine
from exactile.plan.prediction import Plan
from exactile.plan.strips import StripPlan
from exactile.plan.tiles import TilePlan

Constants = Mapping[str, NDArray[Any]]
_WAIT_S = 0.05


class EngineLease:
    """Opens engines for plans, one at a time; with ``keep`` the last one stays open for a run that needs the same.

    A run holds the engine from its first tile to its last, so that strips of one image follow each other. Owns it.
    """

    def __init__(self, model: DeployedModel, *, threads: int | None, keep: bool) -> None:
        self._model = model
        self._threads = threads
        self._keep = keep
        self._lock = threading.Lock()
        self._engine: Engine | None = None
        self._key: tuple[Any, ...] = ()

    @contextmanager
    def other(
        self, opened: Callable[[], OnnxRuntimeEngine], *, check: Callable[[], None]
    ) -> Iterator[tuple[OnnxRuntimeEngine, float]]:
        """What ``opened`` gives, and the seconds that this took; no other engine is open meanwhile.

        Waits, calling ``check``, as ``engine`` does. Raises EngineError.
        """
        with self._alone(check):
            self._drop()
            begin = time.perf_counter()
            engine = opened()
            try:
                yield engine, time.perf_counter() - begin
            finally:
                engine.close()

    @contextmanager
    def _alone(self, check: Callable[[], None]) -> Iterator[None]:
        while not self._lock.acquire(timeout=_WAIT_S):
            check()
        try:
            yield
        finally:
            self._lock.release()

    @contextmanager
    def engine(
        self, plan: Plan, *, activation_bytes: int, constants: Constants, check: Callable[[], None]
    ) -> Iterator[tuple[Engine, float]]:
        """The engine for ``plan`` and the seconds that opening it took, 0 where it was open.

        Waits until no other run has one; ``check`` is called meanwhile, and may raise. Raises EngineError.
        """
        with self._alone(check):
            begin = time.perf_counter()
            opened = self._take(plan, activation_bytes, constants)
            try:
                yield opened, time.perf_counter() - begin
            except BaseException:
                self._drop()
                raise
            if not self._keep:
                self._drop()

    def close(self) -> None:
        """Close the engine that was kept; safe to call twice. Not while a run holds it."""
        with self._lock:
            self._drop()

    def _take(self, plan: Plan, activation_bytes: int, constants: Constants) -> Engine:
        shape = (plan.x.tile, plan.bands, plan.strips.key) if isinstance(plan, StripPlan) else plan.tile_shape
        values = tuple((name, constants[name].tobytes()) for name in sorted(constants))
        key = (type(plan), plan.placed, shape, activation_bytes, values)
        if self._engine is None or key != self._key:
            self._drop()
            self._engine, self._key = (
                open_engine(
                    self._model, plan, activation_bytes=activation_bytes, constants=constants, threads=self._threads
                ),
                key,
            )
        return self._engine

    def _drop(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()


def open_engine(
    model: DeployedModel, plan: Plan, *, activation_bytes: int, constants: Constants, threads: int | None
) -> Engine:
    """The engine that runs ``plan``. Raises EngineError."""
    model = model.at(plan.geometry)
    if isinstance(plan, StripPlan):
        contract = model.contract
        return StripEngine(
            plan.strips,
            contract,
            band_width=plan.x.tile,
            bands=plan.bands,
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
