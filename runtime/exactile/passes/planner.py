"""Plans for passes that find statistics: tiles, whose results are a few numbers."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import replace

import numpy as np

from exactile.contract import Level
from exactile.engines.device_partials import DevicePartials
from exactile.kept_maps.store import part_bytes
from exactile.pipeline.device_ring import LoadBytes
from exactile.plan.budget import INPUT_SLOTS, MemoryNeed
from exactile.plan.prediction import Plan
from exactile.plan.tiles import TilePlan
from exactile.planning import Planner
from exactile.processors.planning import DevicePlanner
from exactile.processors.protocol import DeviceSpace


class PassPlanner(Planner):
    """Plans for a ``level`` of another model, within ``budget_bytes`` of resident memory.

    With ``space``, on GPUs. ``on_disk`` are the kept maps in scratch files, by output; None: it may be all of them.
    """

    def __init__(
        self,
        level: Level,
        *,
        budget_bytes: int,
        process_bytes: int,
        space: DeviceSpace | None = None,
        on_disk: Container[str] | None = None,
    ) -> None:
        super().__init__(level.model, budget_bytes=budget_bytes, process_bytes=process_bytes)
        self._maps_on_disk = on_disk
        if space is not None:
            self._devices = DevicePlanner(level.model, space, _load_of(level))

    def _host_need(self, plan: Plan, need: MemoryNeed) -> MemoryNeed:
        found, image = super()._host_need(plan, need), self._contract.image
        tile_bytes = plan.tile_shape[0] * plan.tile_shape[1] * image.channels * np.dtype(image.dtype).itemsize
        parts = part_bytes((*self._model.reads, *self._model.writes), plan, self._maps_on_disk)
        return replace(found, buffer_bytes=min(len(plan), INPUT_SLOTS) * tile_bytes + parts)


def _load_of(level: Level) -> Callable[[Plan, int], LoadBytes]:
    partials = DevicePartials.of(level)

    def load(plan: Plan, _batch: int) -> LoadBytes:
        assert isinstance(plan, TilePlan)
        return LoadBytes.of_partials(level.model.contract, plan, partials)

    return load
