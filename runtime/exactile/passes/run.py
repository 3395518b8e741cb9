"""Run the passes before the result: each finds the statistics of one level, those of lower levels known."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.contract import DeployedModel, Level
from exactile.engines.arena import HeldRegion
from exactile.engines.device_partials import WITHOUT_GPU_PASSES
from exactile.errors import BudgetError, DeviceError, DeviceMemoryError, OptionError, PlanError
from exactile.geometry import Box
from exactile.kept_maps.store import MapStore, lifetimes
from exactile.passes.found import NOTHING, Found, Keeping, LevelKeeping, is_finished, passes_to_run
from exactile.passes.merge import Merged
from exactile.passes.merging_sink import MergingSink, ZonesSink
from exactile.passes.planner import PassPlanner
from exactile.passes.report import PassReport
from exactile.passes.unread import Unread
from exactile.pipeline.cancellation import Cancellation
from exactile.pipeline.compute import Compute
from exactile.pipeline.run import Pipeline
from exactile.pipeline.staging import read_plan
from exactile.plan.budget import MemoryNeed
from exactile.plan.prediction import Plan
from exactile.plan.remaining import remaining
from exactile.plan.tiles import TilePlan
from exactile.planning import Planner, Wish
from exactile.processors.protocol import Constants, Processor
from exactile.sinks.nothing import NoSink
from exactile.sources.protocol import Source

Progress = Callable[[int, int], None]
"""Called with the image pixels done in all passes, and their total."""


@dataclass(slots=True, kw_only=True)
class Passes:
    """Find the statistics of ``source`` that ``model`` takes.

    ``predicted_bytes`` is the most memory that any pass so far was predicted to take.
    """

    model: DeployedModel
    planner: Planner
    processor: Processor
    source: Source
    wish: Wish
    cancellation: Cancellation
    progress: Progress = lambda _done, _total: None
    scratch: Path = field(default_factory=lambda: Path(tempfile.gettempdir()))
    reports: list[PassReport] = field(default_factory=list)
    maps: MapStore | None = None
    predicted_bytes: int = 0
    _held: HeldRegion = field(default_factory=HeldRegion)
    _done: float = 0.0

    def check(self) -> None:
        """Raise OptionError for borders that extend the image by the halo: each pass has another halo.

        Raises DeviceError for images that GPUs do not accept in passes.
        """
        self._check_size()
        if self.model.levels and self.wish.border != "model":
            raise OptionError(
                f"--border {self.wish.border} extends the image by the halo; a network that takes statistics of the "
                "whole image has a halo for each pass: leave it out"
            )

    def _check_size(self) -> None:
        """Raise DeviceError for sizes that GPUs do not accept: graphs there take no position, and extension changes
        statistics.
        """
        size = self.source.height, self.source.width
        models = [self.model, *(level.model for level in self.model.levels)]
        if self.processor.space is None or not self.model.levels:
            return
        if any(one.contract.geometry.of_size(size).placed for one in models):
            raise DeviceError(
                f"for images of {size[0]} x {size[1]} pixels operators of this network depend on the position, and it "
                f"takes statistics of the whole image: such run on the CPU only. What to do: {WITHOUT_GPU_PASSES}"
            )

    def planned(self, plan: Plan, found: Found) -> Found:
        """Return ``found``, with the tiles of passes that still have to run; ``plan`` is that of the result.

        Raises BudgetError, PlanError.
        """
        if found.tiles or not any(passes_to_run(self.model, found.statistics)):
            return found
        size = plan.y.domain.size, plan.x.domain.size
        levels = self.model.levels
        return replace(
            found, tiles=tuple(self._plan(self._level_planner(level, size), size)[0].tile_shape for level in levels)
        )

    def run(
        self, plan: Plan, constants: Constants, found: Found = NOTHING, keeping: Keeping | None = None
    ) -> dict[str, NDArray[Any]]:
        """Return every statistic, by the name of the input that takes it; ``plan`` is that of the result.

        What an earlier run has ``found`` stays as it is, because another grid of tiles would change its last digits:
        such passes run only if maps that they write are needed. ``keeping`` receives what is found.

        Raises BudgetError, PlanError, SourceError, EngineError, SinkError, CancelledError.
        """
        found, size = self.planned(plan, found), (plan.y.domain.size, plan.x.domain.size)
        keeping = keeping or Keeping()
        runs = passes_to_run(self.model, found.statistics)
        if not any(runs):
            return dict(found.statistics)
        if self.model.reads:
            self.maps = MapStore(size, memory_bytes=self.planner.kept_bytes, folder=self.scratch)
        for index, (level, (opened, dropped)) in enumerate(zip(self.model.levels, lifetimes(self.model), strict=False)):
            if runs[index]:
                if self.maps is not None:
                    self.maps.open(opened)
                found = self._run_one(index, found, size, constants, keeping)
            else:
                self._advance(self.source.height * self.source.width, level.model.work)
            if self.maps is not None:
                self.maps.drop(dropped)
                self.maps.end_pass()
        return dict(found.statistics)

    def _run_one(
        self, index: int, found: Found, size: tuple[int, int], constants: Constants, keeping: Keeping
    ) -> Found:
        """Run pass ``index``; return what is known then."""
        begin, level = time.perf_counter(), self.model.levels[index]
        merged, known = Merged(level.statistics), is_finished(level, found.statistics)
        goes_on = not known and not level.model.writes  # maps ended with the process: all of them are computed again
        zones = 0
        if goes_on and found.begun is not None:
            merged.restore(found.begun.state)
            zones = found.begun.zones
        chosen = self.run_level(
            level,
            merged,
            size,
            {**constants, **found.statistics},
            tile=found.tiles[index] if found.tiles else None,
            zones=zones,
            keeping=LevelKeeping(keeping=keeping, found=found, index=index, merged=merged) if goes_on else None,
        )
        computed = chosen.computed_pixels - zones * prod(chosen.tile_shape)
        self.reports.append(
            PassReport(
                statistics=len(level.statistics),
                tile=chosen.tile_shape,
                tiles=len(chosen),
                computed_pixels=computed,
                seconds=time.perf_counter() - begin,
                work=level.model.work * computed / (self.source.height * self.source.width),
                kept_tiles=zones,
            )
        )
        if known:
            return found
        statistics = {**found.statistics, **merged.values()}
        found = replace(found.with_tile(index, chosen.tile_shape), statistics=statistics, begun=None)
        keeping.note(lambda: found)
        return found

    def run_level(
        self,
        level: Level,
        merged: Merged,
        size: tuple[int, int],
        constants: Constants,
        *,
        tile: tuple[int, int] | None = None,
        zones: int = 0,
        keeping: LevelKeeping | None = None,
    ) -> TilePlan:
        """Add this image to ``merged`` and return the plan; the pass of the result runs over ``size``, (height, width).

        ``tile`` is (height, width), by default by cost. The first ``zones`` of the plan are merged already.

        Raises BudgetError, PlanError, SourceError, EngineError, SinkError, CancelledError.
        """
        self._check_size()
        planner = self._level_planner(level, size)
        with self._own_cancellation() as cancellation:
            plan, need, compute = self._ready(planner, level, size, constants, cancellation, tile, exactly=zones > 0)
            done = frozenset(step.zor for step in islice(plan, zones))
            left = remaining(plan, done.__contains__)
            sink = MergingSink(plan, merged, zones=zones, keeping=keeping)
            if zones:
                self._advance(sum(zone.area for zone in done), level.model.work)
            if left is None:
                compute.close()
                return plan
            self._compute(level, left, need, compute, sink, cancellation, done)
        sink.finish()
        return plan

    def level_plan(self, level: Level, size: tuple[int, int], tile: tuple[int, int] | None) -> TilePlan:
        """Return the plan of ``run_level``. Raises BudgetError, PlanError."""
        self._check_size()
        return self._plan(self._level_planner(level, size), size, tile)[0]

    def run_zones(
        self,
        level: Level,
        size: tuple[int, int],
        constants: Constants,
        *,
        tile: tuple[int, int],
        part: Callable[[TilePlan], TilePlan],
    ) -> NDArray[np.float64]:
        """Return the partial statistics, (Z, P), of the zones of ``level_plan`` that ``part`` selects, in its order.

        ``run_level`` merges them. Raises BudgetError, PlanError, SourceError, EngineError, CancelledError.
        """
        plan, planner = part(self.level_plan(level, size, tile)), self._level_planner(level, size)
        with self._own_cancellation() as cancellation:
            need = planner.memory_need(plan, self.source, NoSink())
            compute = self.processor.partials(level, plan, need, constants, cancellation, None)
            sink = ZonesSink(plan, sum(statistic.numbers for statistic in level.statistics))
            self._compute(level, plan, need, compute, sink, cancellation)
        return sink.partials

    def _compute(
        self,
        level: Level,
        plan: Plan,
        need: MemoryNeed,
        compute: Compute,
        sink: NoSink,
        cancellation: Cancellation,
        done: frozenset[Box] = frozenset(),
    ) -> None:
        budget_bytes = self.planner.budget_bytes
        granted = need.decoding_bytes + need.granted_cache(budget_bytes)
        self.source.prepare(read_plan(plan), cache_bytes=granted)
        self.opening(need)
        Pipeline(
            plan=plan,
            contract=level.model.contract,
            source=self.source if level.model.reads_image else Unread(self.source),
            compute=compute,
            sink=sink,
            progress=lambda pixels: self._advance(pixels, level.model.work),
            is_done=done.__contains__,
            cancellation=cancellation,
        ).run()

    def opening(self, need: MemoryNeed) -> None:
        """Prepare for the engine of a plan with this ``need``."""
        budget_bytes, activations = self.planner.budget_bytes, need.activation_bytes
        others = need.needed_bytes - activations + need.granted_cache(budget_bytes)
        if self.processor.space is None:
            activations = self._held.before(activations, budget_bytes - others)
        self.predicted_bytes = max(self.predicted_bytes, others + activations)

    def close(self) -> None:
        """Release what is kept; safe to call twice."""
        self._held.release()
        if self.maps is not None:
            self.maps.close()

    def _level_planner(self, level: Level, size: tuple[int, int]) -> PassPlanner:
        return PassPlanner(
            level,
            budget_bytes=self.planner.budget_bytes,
            process_bytes=self.planner.process_bytes,
            space=self.processor.level_space(level),
            on_disk=self.planner.maps_on_disk(*size) if self.maps is None else self.maps.on_disk,
        )

    def _ready(
        self,
        planner: PassPlanner,
        level: Level,
        size: tuple[int, int],
        constants: Constants,
        cancellation: Cancellation,
        tile: tuple[int, int] | None,
        *,
        exactly: bool,
    ) -> tuple[TilePlan, MemoryNeed, Compute]:
        """Return a plan that the processor has room for, and what computes it; with ``tile``, if need
        be ``exactly``.
        """
        while True:
            plan, need = self._plan(planner, size, tile)
            try:
                return plan, need, self.processor.partials(level, plan, need, constants, cancellation, self.maps)
            except DeviceMemoryError as error:
                planner.refuse(plan, need, error)
                tile = tile if exactly else None

    @contextmanager
    def _own_cancellation(self) -> Iterator[Cancellation]:
        """Yield a cancellation that is set with the run's; waiters and their buffers end with the pass."""
        own = Cancellation()

        def stop() -> None:
            assert self.cancellation.cause is not None
            own.cancel(self.cancellation.cause)

        self.cancellation.on_cancel(stop)
        try:
            yield own
        finally:
            self.cancellation.forget(stop)

    def _plan(
        self, planner: PassPlanner, size: tuple[int, int], tile: tuple[int, int] | None = None
    ) -> tuple[TilePlan, MemoryNeed]:
        """Plan with ``tile``; without it as for the result if a tile was requested and can be used, else by cost.

        Raises BudgetError, PlanError.
        """
        sink = NoSink()
        plan = self._by_wish(planner, sink) if tile is None else _of_tile(planner, self.source, sink, tile)
        own = plan.y.domain.size, plan.x.domain.size
        if own != size:
            why = "the image is too small"
            if self.processor.space is not None and self.processor.space.engines is not None:
                why = "no engines of passes were built for images of this size modulo the stride"
            raise PlanError(f"{why}: passes run over {own} pixels, and the last over {size}")
        return plan, planner.memory_need(plan, self.source, sink)

    def _by_wish(self, planner: PassPlanner, sink: NoSink) -> TilePlan:
        wishes = [Wish(plan="whole" if self.wish.plan == "whole" else "tile")]
        if self.wish.plan != "strip" and self.wish.tile is not None:
            wishes.insert(0, Wish(plan="tile", tile=self.wish.tile))
        for wish in wishes:
            with suppress(*((BudgetError, PlanError) if wish is not wishes[-1] else ())):
                plan = planner.choose(self.source, sink, wish).plan
                break
        assert isinstance(plan, TilePlan)
        return plan

    def _advance(self, pixels: int, work: float) -> None:
        """Report progress: a pass counts as much as it is predicted to take."""
        works = [level.model.work for level in self.model.levels]
        mean = sum(works) / len(works)
        self._done += pixels * (work / mean if mean > 0 else 1)
        total = len(works) * self.source.height * self.source.width
        self.progress(min(round(self._done), total), total)


def _of_tile(planner: PassPlanner, source: Source, sink: NoSink, tile: tuple[int, int]) -> TilePlan:
    """Return the plan with this tile. Raises BudgetError if it no longer fits."""
    try:
        plan = planner.choose(source, sink, Wish(plan="tile", tile=tile)).plan
    except BudgetError as error:
        raise BudgetError(
            f"{error}. These are the tiles of the run to resume, and others would change the last digits of "
            "its statistics. What to do: give it as much memory as before, or start again with --overwrite, without "
            "--resume",
            least_bytes=error.least_bytes,
        ) from error
    assert isinstance(plan, TilePlan)
    return plan
