"""Lend engines to the runs of a session: one for each lane of a run, or one for each of several runs side by side."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from numpy.typing import NDArray

from exactile.contract import DeployedModel
from exactile.engines.host_families import HostFamily
from exactile.engines.protocol import Engine
from exactile.engines.threads import threads_of_lane
from exactile.plan.budget import MemoryNeed
from exactile.plan.prediction import Plan
from exactile.plan.strips import StripPlan

Constants = Mapping[str, NDArray[Any]]
Kind = tuple[Any, ...]
AnyEngine = TypeVar("AnyEngine", bound=Engine)
_WAIT_S = 0.05


class EngineLease:
    """Open engines of ``family`` for plans; with ``keep`` the last ones stay open for a run that needs the same.

    A run holds an engine from its first tile to its last, so that strips of one image follow each other. Runs side by
    side each hold one engine, none of which needs more activations than the first; any other run is alone. Owns the
    engines.
    """

    def __init__(self, family: HostFamily, model: DeployedModel, *, threads: int | None, keep: bool) -> None:
        self._family = family
        self._model = model
        self._threads = threads
        self._keep = keep
        self._free = threading.Condition()
        self._slots: dict[object, set[int]] = {}
        self._beside, self._activation_bytes = 1, 0
        self._engines: dict[int, tuple[Kind, Engine]] = {}

    def engines(self, plan: Plan, need: MemoryNeed, constants: Constants) -> RunEngines:
        """Return the engines of one run of ``plan``; ``need`` is for all of its lanes and all
        concurrent runs together.
        """
        return RunEngines(self, plan, need, constants)

    @contextmanager
    def other(self, opened: Callable[[], AnyEngine], *, check: Callable[[], None]) -> Iterator[tuple[AnyEngine, float]]:
        """Yield the engine that ``opened`` returns, and the seconds that opening took; no other engine is open
        meanwhile.

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
    def held(
        self, run: object, check: Callable[[], None], *, index: int = 0, beside: int = 1, activation_bytes: int = 0
    ) -> Iterator[int]:
        """Yield the slot of a lane of ``run``; until the last slot is returned, no other run gets any.

        Exception: up to ``beside`` concurrent runs have one each, if none needs more ``activation_bytes`` than the
        first, because the region of the arena cannot grow in use. Waits, calling ``check``, until a slot is free.
        """
        slots = range(beside) if beside > 1 else (index,)
        with self._free:
            while (slot := self._free_slot(run, slots, beside, activation_bytes)) is None:
                self._free.wait(_WAIT_S)
                check()
            if beside != self._beside or activation_bytes > self._activation_bytes:
                self._beside, self._activation_bytes = beside, activation_bytes
                if beside > 1:
                    self.drop()
            self._slots.setdefault(run, set()).add(slot)
        try:
            yield slot
        finally:
            with self._free:
                self._slots[run].remove(slot)
                if not self._slots[run]:
                    del self._slots[run]
                self._free.notify_all()

    def _free_slot(self, run: object, slots: Iterable[int], beside: int, activation_bytes: int) -> int | None:
        alike = 1 < beside == self._beside and activation_bytes <= self._activation_bytes
        if not alike and any(other is not run for other in self._slots):
            return None
        taken = set().union(*self._slots.values())
        return next((slot for slot in slots if slot not in taken), None)

    def close(self) -> None:
        """Close the kept engines; safe to call twice. Not while a run holds one."""
        with self.held(object(), lambda: None):
            self.drop()

    def take(self, slot: int, engines: RunEngines) -> Engine:
        """Return the engine of a slot, for the run that holds it. Raises EngineError."""
        plan, need, alone = engines.plan, engines.need, engines.need.beside == 1
        with self._free:
            known = self._engines.get(slot)
            if known is not None and known[0] == engines.kind:
                return known[1]
            if alone and any(kind != engines.kind for kind, _ in self._engines.values()):
                self.drop()
        self._close(slot)
        engine = open_engine(
            self._family,
            self._model,
            plan,
            activation_bytes=need.activation_bytes if alone else self._activation_bytes,
            constants=engines.constants,
            threads=threads_of_lane(self._threads, plan.lanes * need.beside),
            lane=slot if alone else None,
        )
        with self._free:
            self._engines[slot] = engines.kind, engine
        return engine

    def left(self, slot: int, *, failed: bool) -> None:
        """Return the slot of a run that no longer needs its engine."""
        if failed or not self._keep:
            self._close(slot)

    def _close(self, slot: int) -> None:
        with self._free:
            known = self._engines.pop(slot, None)
        if known is not None:
            known[1].close()

    def drop(self) -> None:
        """Close all engines; called by the holder of the lease."""
        with self._free:
            engines, self._engines = self._engines, {}
        for _kind, engine in engines.values():
            engine.close()


@dataclass(frozen=True, slots=True, eq=False)
class RunEngines:
    """Engines of one run, lent by ``lease``."""

    lease: EngineLease
    plan: Plan
    need: MemoryNeed
    constants: Constants

    @property
    def kind(self) -> Kind:
        """Runs of equal kinds can use each other's engines."""
        plan, constants = self.plan, self.constants
        shape = (plan.x.tile, plan.bands, plan.strips.key) if isinstance(plan, StripPlan) else plan.tile_shape
        values = tuple((name, constants[name].tobytes()) for name in sorted(constants))
        return type(plan), plan.placed, shape, plan.lanes, self.need.beside, self.need.activation_bytes, values

    @contextmanager
    def lane(self, index: int, check: Callable[[], None]) -> Iterator[tuple[Engine, float]]:
        """Yield the engine of a lane and the seconds that opening it took, 0 if it was open.

        Waits until it is free; ``check`` is called meanwhile, and may raise. Raises EngineError.
        """
        need = self.need
        with self.lease.held(
            self, check, index=index, beside=need.beside, activation_bytes=need.activation_bytes
        ) as slot:
            begin = time.perf_counter()
            opened = self.lease.take(slot, self)
            try:
                yield opened, time.perf_counter() - begin
            except BaseException:
                self.lease.left(slot, failed=True)
                raise
            self.lease.left(slot, failed=False)


def open_engine(
    family: HostFamily,
    model: DeployedModel,
    plan: Plan,
    *,
    activation_bytes: int,
    constants: Constants,
    threads: int | None,
    lane: int | None = None,
) -> Engine:
    """Open the engine with ``threads`` that runs ``plan``, or a ``lane`` of it. Raises EngineError.

    ``activation_bytes`` are those of all concurrently open engines.
    """
    told: dict[str, Any] = {"activation_bytes": activation_bytes, "constants": constants, "threads": threads}
    if isinstance(plan, StripPlan):
        bands = range(plan.bands) if lane is None else range(lane, plan.bands, plan.lanes)
        return family.open_strips(model, plan, bands=bands, **told)
    return family.open_tiles(model, plan, **told)
