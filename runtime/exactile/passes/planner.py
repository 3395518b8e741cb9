"""Plans for passes that find statistics: tiles, whose results are a few numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from exactile.contract import DeployedModel
from exactile.passes.store import part_bytes
from exactile.plan.budget import INPUT_SLOTS, MemoryNeed
from exactile.plan.choice import Plan
from exactile.planning import Planner


class PassPlanner(Planner):
    """Plans for ``model``, a level of another one, within ``budget_bytes`` of resident memory."""

    def __init__(self, model: DeployedModel, *, budget_bytes: int, process_bytes: int) -> None:
        super().__init__(model, budget_bytes=budget_bytes, process_bytes=process_bytes)

    def _host_need(self, plan: Plan, need: MemoryNeed) -> MemoryNeed:
        found, image = super()._host_need(plan, need), self._contract.image
        tile_bytes = plan.tile_shape[0] * plan.tile_shape[1] * image.channels * np.dtype(image.dtype).itemsize
        parts = part_bytes((*self._model.reads, *self._model.writes), plan.tile_shape)
        return replace(found, buffer_bytes=min(len(plan), INPUT_SLOTS) * tile_bytes + parts)
