"""A session on one or several GPUs: a station each, kept open until the session is closed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from exactile.contract import DeployedModel, Level
from exactile.cuda.protocol import Device, DeviceInfo, Driver
from exactile.engines.device_partials import DevicePartials
from exactile.engines.families import EngineFamily
from exactile.errors import DeviceError
from exactile.kept_maps.store import MapStore
from exactile.pipeline.cancellation import Cancellation
from exactile.pipeline.compute import Free
from exactile.pipeline.device_compute import DeviceCompute
from exactile.pipeline.device_lane import DeviceLane
from exactile.pipeline.device_staging import Staging
from exactile.plan.budget import MemoryNeed
from exactile.plan.built import batch_of
from exactile.plan.prediction import Plan
from exactile.plan.strips import StripPlan
from exactile.plan.tiles import TilePlan
from exactile.processors.device_strip_engine import DeviceStripEngine
from exactile.processors.protocol import Constants, DeviceSpace
from exactile.processors.station import SLOTS, DeviceWork, Station, statistic_bytes

SAFE_SHARE = 0.9
"""Fraction of a GPU's free memory that a session takes by default."""


class GpuProcessor:
    """Implements ``Processor``. Owns the devices and everything on them.

    ``levels`` are the engines of the passes before the result, in their order. ``memory_bytes`` bounds what is planned
    for each GPU (default: a safe share of what is free on the fullest).
    """

    def __init__(
        self,
        model: DeployedModel,
        driver: Driver,
        infos: Sequence[DeviceInfo],
        family: EngineFamily,
        *,
        levels: Sequence[EngineFamily] = (),
        memory_bytes: int | None = None,
    ) -> None:
        self._model, self._family = model, family
        self._levels = {
            level.statistics: DeviceWork(
                model=level.device_model,
                family=of_level,
                statistics=statistic_bytes(model),
                level=number,
                partials=DevicePartials.of(level),
            )
            for number, (level, of_level) in enumerate(zip(model.levels, levels, strict=True))
        }
        self._owned = ExitStack()
        self._infos = tuple(infos)
        try:
            devices = [self._open(driver, info) for info in infos]
            self._staging = Staging(devices[0])
            self._owned.callback(self._staging.close)
            self._memory_bytes = memory_bytes if memory_bytes is not None else _safe_bytes(devices)
            self.stations = tuple(
                Station(model, device, family, index=index, of=len(devices)) for index, device in enumerate(devices)
            )
        except BaseException:
            self._owned.close()
            raise
        for station in self.stations:
            self._owned.callback(station.drop)

    @property
    def name(self) -> str:
        gpus = ", ".join(f"cuda:{info.ordinal} {info.name}" for info in self._infos)
        return f"{gpus}; {self._family.name}"

    @property
    def identity(self) -> Mapping[str, Any]:
        kinds = sorted({f"{info.name} {info.compute_capability}" for info in self._infos})
        return {**self._family.identity, "devices": kinds}

    @property
    def space(self) -> DeviceSpace:
        return DeviceSpace(
            devices=len(self.stations), slots=SLOTS, memory_bytes=self._memory_bytes, engines=self._family.engines
        )

    def ready(self, plan: Plan, need: MemoryNeed, cancellation: Cancellation) -> None:  # noqa: ARG002 -- the seam's signature
        for station in self.stations:
            station.ready(plan, self._batch(plan), cancellation)

    def compute(
        self,
        plan: Plan,
        need: MemoryNeed,  # noqa: ARG002 -- the seam's signature
        constants: Constants,
        cancellation: Cancellation,
        maps: MapStore | None = None,  # noqa: ARG002 -- models that read such run on the CPU
    ) -> DeviceCompute:
        batch = self._batch(plan)

        def open_lane(index: int, free: Free) -> DeviceLane:
            return self.stations[index].lane(plan, batch, constants, cancellation, free)

        return self._over_stations(plan, self._model, open_lane, batch)

    def level_space(self, level: Level) -> DeviceSpace:
        return replace(self.space, engines=self._levels[level.statistics].family.engines)

    def partials(
        self,
        level: Level,
        plan: TilePlan,
        need: MemoryNeed,  # noqa: ARG002 -- the seam's signature
        constants: Constants,
        cancellation: Cancellation,
        maps: MapStore | None = None,  # noqa: ARG002 -- nothing is kept between passes on GPUs
    ) -> DeviceCompute:
        """Return what computes partial statistics; each GPU closes the previous network before it opens the pass's."""
        work = self._levels[level.statistics]
        for station in self.stations:
            station.ready(plan, 1, cancellation, work)

        def open_lane(index: int, free: Free) -> DeviceLane:
            return self.stations[index].lane(plan, 1, constants, cancellation, free, work)

        return self._over_stations(plan, level.model, open_lane, 1)

    def _over_stations(
        self, plan: Plan, model: DeployedModel, open_lane: Callable[[int, Free], DeviceLane], batch: int
    ) -> DeviceCompute:
        return DeviceCompute(
            plan=plan,
            contract=model.contract,
            posts=self.stations,
            open=open_lane,
            pinned=self._staging,
            slots=SLOTS,
            batch=batch,
        )

    def strip_engine(self, plan: StripPlan, need: MemoryNeed, constants: Constants) -> DeviceStripEngine:  # noqa: ARG002 -- the seam's signature
        """Open it on the first of the GPUs: single strips follow each other.

        What that GPU keeps of an earlier run is released: the plan is for all of its memory.
        """
        self.stations[0].let_go()
        return DeviceStripEngine(self._model, self.stations[0].device, self._family, plan, constants)

    def close(self) -> None:
        self._owned.close()

    def _open(self, driver: Driver, info: DeviceInfo) -> Device:
        device = driver.open(info.ordinal)
        self._owned.callback(device.close)
        return device

    def _batch(self, plan: Plan) -> int:
        return batch_of(plan, self._family.engines)


def _safe_bytes(devices: Sequence[Device]) -> int:
    free = []
    for device in devices:
        with device.current():
            free.append(device.memory.free_bytes())
    least = int(min(free) * SAFE_SHARE)
    if least <= 0:
        raise DeviceError("the GPU has no free memory; end what else runs on it, or choose another one")
    return least
