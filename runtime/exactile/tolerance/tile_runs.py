"""Single tiles of an image, computed apart from a run."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.contract import DeployedModel
from exactile.errors import BudgetError, EngineError
from exactile.pipeline.staging import stage_tile
from exactile.plan.tiles import Step, TilePlan
from exactile.planning import Planner
from exactile.processors.host import HostProcessor
from exactile.sinks.protocol import Sink
from exactile.sources.protocol import ReadPlan, Source

Array = NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class TileRuns:
    """Runs tiles of ``source`` one by one. ``check`` is called between them, and may raise."""

    model: DeployedModel
    planner: Planner
    processor: HostProcessor
    source: Source
    sink: Sink
    constants: Mapping[str, Array]
    check: Callable[[], None] = lambda: None

    def results(self, plan: TilePlan, steps: Sequence[Step]) -> Iterator[Array]:
        """Yield the result of each zone, (H, W) or (C, H, W). Raises BudgetError, SourceError, EngineError."""
        tiles = (self.staged(step) for step in steps)
        for out, step in zip(self.outputs(plan, tiles), steps, strict=True):
            yield out[(..., *step.crop.slices())].copy()

    def staged(self, step: Step) -> Array:
        """Return the pixels of a tile, (H, W, C)."""
        try:
            tile = np.empty((*step.tile.shape, self.source.channels), self.source.dtype)
        except MemoryError as error:
            raise EngineError("out of memory while a tile was checked; use a smaller --tile") from error
        stage_tile(self.source, step.tile, "model", tile)
        return tile

    def outputs(self, plan: TilePlan, tiles: Iterator[Array]) -> Iterator[Array]:
        """Yield the network's output for each of ``tiles``, which have the shape of ``plan``."""
        need = self.planner.memory_need(plan, self.source, self.sink)
        if not need.fits(self.planner.budget_bytes):
            height, width = plan.tile_shape
            raise BudgetError(
                f"a tile of {height}x{width}, which the tolerance is checked with, "
                f"{need.shortage(self.planner.budget_bytes)}, or use a smaller --tile"
            )
        result = self.model.contract.result
        shape = (*((result.channels,) if result.channels else ()), *plan.tile_output_shape)
        self.source.prepare(ReadPlan(rows=(), columns=()), cache_bytes=0)
        with self.processor.tile_engine(plan, need, self.constants, self.check) as engine:
            for tile in tiles:
                self.check()
                out = np.empty(shape, result.dtype)
                engine.infer(tile, out)
                yield out


def sample(plan: TilePlan, count: int, seed: int) -> list[Step]:
    """Return ``count`` steps spread over ``plan``, or all: one at random from each of as many stretches of it."""
    chosen, total = random.Random(seed), len(plan)  # noqa: S311 -- no secret
    count = min(count, total)
    numbers = {chosen.randrange(part * total // count, (part + 1) * total // count) for part in range(count)}
    return [step for number, step in enumerate(plan) if number in numbers]
