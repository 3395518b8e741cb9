"""The passes before the result: each finds the statistics of one level, those of lower levels known."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from exactile.contract import DeployedModel, Level
from exactile.engines.arena import HeldRegion
from exactile.errors import BudgetError, DeviceError, DeviceMemoryError, OptionError, PlanError
from exactile.geometry import Box
from exactile.passes.device_partials import WITHOUT_GPU_PASSES
from exactile.passes.merge import Merged
from exactile.passes.planner import PassPlanner
from exactile.passes.report import PassReport
from exactile.passes.store import MapStore, lifetimes
from exactile.passes.unread import Unread
from exactile.pipeline.cancellation import Cancellation
from exactile.pipeline.compute import Compute
from exactile.pipeline.run import Pipeline
from exactile.pipeline.staging import read_plan
from exactile.plan.budget import MemoryNeed
from exactile.plan.choice import Plan
from exactile.plan.tiles import TilePlan
from exactile.planning import Planner, Wish
from exactile.processors.protocol import Constants, Processor
from exactile.sinks.nothing import NoSink
from exactile.sources.protocol import Source

Progress = Callable[[int, int], None]
"""Called with image pixels done of all passes, and how many there are."""


class MergingSink(NoSink):
    """Takes the partial statistics of zones, and merges them in the order of the plan."""

    def __init__(self, plan: TilePlan, merged: Merged) -> None:
        self._merged = merged
        self._order: Iterator[Box] = (step.zor for step in plan)
        self._next = next(self._order, None)
        self._waiting: dict[Box, NDArray[Any]] = {}

    def write(self, box: Box, block: NDArray[Any]) -> None:
        self._waiting[box] = block
        while self._next in self._waiting:
            assert self._next is not None
            self._merged.add(self._waiting.pop(self._next))
            self._next = next(self._order, None)

    def finish(self) -> None:
        """Everything was merged when the last zone came."""
        assert self._next is None, "a zone has no partial statistics"


@dataclass(slots=True, kw_only=True)
class Passes:
    """Finds the statistics that ``model`` asks for, of ``source``.

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
        """Raises OptionError for borders that extend the image by the halo: that of each pass is another one.

        Raises DeviceError for images that GPUs do not take in passes.
        """
        self._check_size()
        if self.model.levels and self.wish.border != "model":
            raise OptionError(
                f"--border {self.wish.border} extends the image by the halo; a network that takes statistics of the "
                "whole image has a halo for each pass: leave it out"
            )

    def _check_size(self) -> None:
        """Graphs on GPUs are not told where a tile lies, and an image that is extended has other statistics."""
        size = self.source.height, self.source.width
        models = [self.model, *(level.model for level in self.model.levels)]
        if self.processor.space is None or not self.model.levels:
            return
        if any(one.contract.geometry.of_size(size).placed for one in models):
            raise DeviceError(
                f"for images of {size[0]} x {size[1]} pixels operators of this network depend on the position, and it "
                f"takes statistics of the whole image: such run on the CPU only. What to do: {WITHOUT_GPU_PASSES}"
            )

    def run(
        self, plan: Plan, constants: Constants, recorded: Mapping[str, NDArray[Any]] | None = None
    ) -> dict[str, NDArray[Any]]:
        """Every statistic, by the name of the input that takes it; ``plan`` is that of the result.

        With those ``recorded`` by an earlier run, passes make kept maps alone: another grid of tiles would change the
        last digits of what is found.

        Raises BudgetError, PlanError, SourceError, EngineError, CancelledError.
        """
        found = dict(recorded or {})
        lives = lifetimes(self.model)
        if self.model.reads:
            size = plan.y.domain.size, plan.x.domain.size
            self.maps = MapStore(size, memory_bytes=self.planner.kept_bytes, folder=self.scratch)
        for level, (opened, dropped) in zip(self.model.levels, lives, strict=False):
            begin = time.perf_counter()
            if self.maps is not None:
                self.maps.open(opened)
            merged = Merged(level.statistics)
            size = plan.y.domain.size, plan.x.domain.size
            chosen = self.run_level(level, merged, size, {**constants, **found})
            if recorded is None:
                found.update(merged.values())
            if self.maps is not None:
                self.maps.drop(dropped)
                self.maps.end_pass()
            self.reports.append(
                PassReport(
                    statistics=len(level.statistics),
                    tile=chosen.tile_shape,
                    tiles=len(chosen),
                    computed_pixels=chosen.computed_pixels,
                    seconds=time.perf_counter() - begin,
                    work=level.model.work * chosen.computed_pixels / (self.source.height * self.source.width),
                )
            )
        return found

    def run_level(self, level: Level, merged: Merged, size: tuple[int, int], constants: Constants) -> TilePlan:
        """Add this image to ``merged``; the pass of the result runs over ``size``, (height, width). The plan of it.

        Raises BudgetError, PlanError, SourceError, EngineError, CancelledError.
        """
        self._check_size()
        planner = self._level_planner(level)
        with self._own_cancellation() as cancellation:
            plan, need, compute = self._ready(planner, level, size, constants, cancellation)
            sink = MergingSink(plan, merged)
            granted = need.decoding_bytes + need.granted_cache(planner.budget_bytes)
            self.source.prepare(read_plan(plan), cache_bytes=granted)
            self.opening(need)
            Pipeline(
                plan=plan,
                contract=level.model.contract,
                source=self.source if level.model.reads_image else Unread(self.source),
                compute=compute,
                sink=sink,
                progress=lambda pixels: self._advance(pixels, level.model.work),
                cancellation=cancellation,
            ).run()
        sink.finish()
        return plan

    def opening(self, need: MemoryNeed) -> None:
        """The engine of a plan that needs this is opened next."""
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

    def _level_planner(self, level: Level) -> PassPlanner:
        return PassPlanner(
            level,
            budget_bytes=self.planner.budget_bytes,
            process_bytes=self.planner.process_bytes,
            space=self.processor.level_space(level),
        )

    def _ready(
        self,
        planner: PassPlanner,
        level: Level,
        size: tuple[int, int],
        constants: Constants,
        cancellation: Cancellation,
    ) -> tuple[TilePlan, MemoryNeed, Compute]:
        """A plan that the processor has room for, and what computes it."""
        while True:
            plan, need = self._plan(planner, size)
            try:
                return plan, need, self.processor.partials(level, plan, need, constants, cancellation, self.maps)
            except DeviceMemoryError as error:
                planner.refuse(plan, need, error)

    @contextmanager
    def _own_cancellation(self) -> Iterator[Cancellation]:
        """Set with that of the run; what waits for it, and the buffers that these hold, go with the pass."""
        own = Cancellation()

        def stop() -> None:
            assert self.cancellation.cause is not None
            own.cancel(self.cancellation.cause)

        self.cancellation.on_cancel(stop)
        try:
            yield own
        finally:
            self.cancellation.forget(stop)

    def _plan(self, planner: PassPlanner, size: tuple[int, int]) -> tuple[TilePlan, MemoryNeed]:
        """As the result's where that was asked for and can be, else by cost. Raises BudgetError, PlanError."""
        sink = NoSink()
        wishes = [Wish(plan="whole" if self.wish.plan == "whole" else "tile")]
        if self.wish.plan != "strip" and self.wish.tile is not None:
            wishes.insert(0, Wish(plan="tile", tile=self.wish.tile))
        for wish in wishes:
            with suppress(*((BudgetError, PlanError) if wish is not wishes[-1] else ())):
                plan = planner.choose(self.source, sink, wish).plan
                break
        assert isinstance(plan, TilePlan)
        own = plan.y.domain.size, plan.x.domain.size
        if own != size:
            why = "the image is too small"
            if self.processor.space is not None and self.processor.space.engines is not None:
                why = "no engines of passes were built for images of this size modulo the stride"
            raise PlanError(f"{why}: passes run over {own} pixels, and the last over {size}")
        return plan, planner.memory_need(plan, self.source, sink)

    def _advance(self, pixels: int, work: float) -> None:
        """A pass counts as much as it is predicted to take."""
        works = [level.model.work for level in self.model.levels]
        mean = sum(works) / len(works)
        self._done += pixels * (work / mean if mean > 0 else 1)
        total = len(works) * self.source.height * self.source.width
        self.progress(min(round(self._done), total), total)
