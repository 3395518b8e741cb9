"""Run one image of a session: plan, measure, compute and write."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any

from exactile.contract import DeployedModel
from exactile.errors import DeviceMemoryError, OptionError, SinkError
from exactile.geometry import Box
from exactile.image_statistics.measure import Normalizers, constants_of
from exactile.input_protection import check_source_kept
from exactile.kept_maps.store import MapStore
from exactile.machine.memory import peak_resident_bytes, settled_resident_bytes
from exactile.passes.fixed import FixedStatistics
from exactile.passes.found import NOTHING, Keeping
from exactile.passes.run import Passes
from exactile.passes.unread import Unread
from exactile.pipeline.cancellation import Cancellation
from exactile.pipeline.nodata_marks import NodataMarks
from exactile.pipeline.run import Pipeline, Timed
from exactile.pipeline.staging import read_plan
from exactile.plan.budget import MemoryNeed
from exactile.plan.choice import Choice
from exactile.plan.extension import why_extended
from exactile.plan.prediction import Plan
from exactile.plan.remaining import remaining
from exactile.plan.strips import StripPlan
from exactile.planning import PASSES_MARGIN_BYTES, PROCESS_MARGIN_BYTES, Planner, Wish
from exactile.processors.protocol import Processor
from exactile.runs.run_record import Earlier, asked_record, complete_record, found_record, take_over
from exactile.runs.summary import Summary
from exactile.runs.summary_notes import notes_of
from exactile.sinks.protocol import FindingsSink, ResumableSink, Sink
from exactile.sources.damage import report_damage
from exactile.sources.nodata import NodataRule, nodata_rule
from exactile.sources.protocol import ReadCount, ReadPlan, Source
from exactile.tolerance.narrowing import Narrowing
from exactile.tolerance.report import ToleranceReport
from exactile.trial.candidates import Candidates
from exactile.trial.prefix import Prefix
from exactile.trial.trial import choose_by_trial, untried


@dataclass(frozen=True, slots=True, kw_only=True)
class Watcher:
    """Callbacks of a run, called in its threads.

    ``planned``: once, with the plan. ``measuring``: pixels read for statistics, and their total. ``progress``: result
    pixels that were written, or kept from an earlier run. ``read``: once, when the last tile was read.
    """

    planned: Callable[[Plan], None] = lambda _plan: None
    measuring: Callable[[int, int], None] | None = None
    progress: Callable[[int], None] = lambda _pixels: None
    read: Callable[[], None] = lambda: None


@dataclass(slots=True, kw_only=True)
class ImageRun:
    """A run that segments ``source`` into ``sink``. Call ``run`` once.

    ``afterwards`` is called when the result is complete, with the bytes beyond ``wish.apart_bytes`` that it may take.
    With ``release_early`` decoded chunks are dropped once the last tile was read; ``held_bytes`` is what buffers and
    sink still hold then, and ``beside`` the number of runs that may be in progress, each with an engine. ``statistics``
    are for a model whose passes, which would find them, were left out. ``record`` describes the run as plain data, once
    it is planned. With ``narrowing`` tiles may be inexact within a tolerance; ``tolerance`` then reports the error.
    ``part`` is the part of the plan to run, if it is not all.
    """

    model: DeployedModel
    planner: Planner
    processor: Processor
    source: Source
    sink: Sink
    wish: Wish
    measure: Callable[[], Normalizers | None]
    watcher: Watcher = field(default_factory=Watcher)
    resume: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict)
    cancellation: Cancellation = field(default_factory=Cancellation)
    release_early: bool = False
    timed: Timed | None = None
    nodata: float | None = None
    nodata_label: int | None = None
    afterwards: Callable[[int], None] | None = None
    scratch: Path = field(default_factory=lambda: Path(tempfile.gettempdir()))
    statistics: FixedStatistics | None = None
    narrowing: Narrowing | None = None
    tolerance: ToleranceReport | None = None
    part: Callable[[Plan], Plan] | None = None
    held_bytes: int = 0
    beside: int = 1
    record: dict[str, Any] = field(default_factory=dict)
    _chunks: ReadCount | None = None
    _rule: NodataRule | None = None
    _found: Passes | None = None
    _keeping: Keeping = field(default_factory=Keeping)

    def run(self) -> Summary:
        """Run the image. On any failure the sink is aborted and the first error raised."""
        try:
            return self._run()
        except BaseException:
            with suppress(SinkError):
                self._keeping.flush()
            self.sink.abort()
            raise
        finally:
            if self._found is not None:
                self._found.close()
            for rule in (self._rule, self.wish.background):
                if rule is not None:
                    rule.close()

    def _run(self) -> Summary:
        check_source_kept(self.source, self.sink)
        self._passes().check()
        self._find_nodata()
        asked = self.asked()
        earlier = self._earlier(asked) if self.resume else None
        narrowing_s = self._narrow(earlier)
        choice = self._choice(earlier)
        plan = choice.plan
        self.watcher.planned(plan)
        if isinstance(self.sink, FindingsSink):
            self.sink.reserve(resume=self.resume)
        begin = time.perf_counter()
        passes = self._found = self._passes()
        found = passes.planned(plan, NOTHING if earlier is None else earlier.found)
        normalizers = self.measure() if earlier is None else earlier.normalizers
        self._keeping = self._keeper(asked, plan, normalizers, seconds=time.perf_counter() - begin)
        if earlier is None and normalizers is not None:
            self._keeping.note(lambda: found)
        constants = constants_of(self.model.contract.image, normalizers)
        if self.statistics is not None:
            statistics = self.statistics.values
        else:
            statistics = passes.run(plan, constants, found, self._keeping)
        measured_s = time.perf_counter() - begin + narrowing_s
        constants = {**constants, **statistics}
        self.record = complete_record(
            asked, plan, normalizers, statistics, self.tolerance, lanes=None if earlier is None else earlier.lanes
        )
        if isinstance(self.sink, ResumableSink):
            self.sink.describe(self.record, resume=self.resume)
        self.planner.save(plan, self.source, self.sink, self._need(plan))
        self.sink.begin(self.planner.result_spec(plan, self.source))
        is_done = self.sink.is_done if isinstance(self.sink, ResumableSink) else _nothing_done
        kept_pixels = _pixels_done(plan, is_done)
        self.watcher.progress(kept_pixels)
        left = remaining(plan, is_done)
        need = self._need(left or plan)
        together = self._with_runs_beside(left or plan, need)
        pipeline = self._pipeline(left or plan, together, constants, is_done, passes.maps)
        if left is not None:
            granted = need.decoding_bytes + need.granted_cache(self.planner.budget_bytes)
            self.source.prepare(read_plan(left), cache_bytes=granted)
            if self.model.levels:
                passes.opening(need)
            pipeline.run()
        self.sink.finish()
        self._do_afterwards()
        pipeline.seconds.measure = measured_s
        pipeline.seconds.total += measured_s
        summary = self._summary(choice, pipeline, together, kept_pixels, computed=left is not None)
        before = sum(one.work for one in passes.reports)
        last = self.model.work * plan.computed_pixels / (self.source.height * self.source.width)
        return replace(summary, passes=tuple(passes.reports), predicted_work=before + last)

    def _keeper(
        self, asked: Mapping[str, Any], plan: Plan, normalizers: Normalizers | None, *, seconds: float
    ) -> Keeping:
        """Return what keeps findings if the run ends early, if the sink can. Finding began ``seconds`` ago."""
        sink = self.sink
        if not isinstance(sink, FindingsSink):
            return Keeping()
        return Keeping(
            lambda found: sink.keep_found(found_record(asked, plan, normalizers, found, self.tolerance)),
            seconds=seconds,
        )

    def _narrow(self, earlier: Earlier | None) -> float:
        """Run tiles within the tolerance, if that is requested and they satisfy it. Return the seconds that it took.

        Statistics of the image are found first.
        """
        begin, narrowing = time.perf_counter(), self.narrowing
        if narrowing is None:
            return 0.0
        if earlier is not None and earlier.tolerance is not None:
            taken = narrowing.taken_over(earlier.tolerance, earlier.shape)
        else:
            normalizers = self.measure()
            self.measure = lambda: normalizers
            constants = constants_of(self.model.contract.image, normalizers)
            constants.update(self.statistics.values if self.statistics is not None else {})
            taken = narrowing.find(constants, self.cancellation.check)
        self.model, self.planner, self.wish, self.tolerance = taken.model, taken.planner, taken.wish, taken.report
        return time.perf_counter() - begin

    def _passes(self) -> Passes:
        return Passes(
            model=self.model,
            planner=self.planner,
            processor=self.processor,
            source=self.source,
            wish=self.wish,
            cancellation=self.cancellation,
            scratch=self.scratch,
            progress=self.watcher.measuring or (lambda _done, _total: None),
        )

    def asked(self) -> dict[str, Any]:
        """Return the request, as plain data."""
        arguments = {**self.arguments}
        if self.nodata_label is not None:
            arguments["nodata_label"] = self.nodata_label
        if self.statistics is not None:
            arguments["statistics"] = self.statistics.identity
        return asked_record(self.model, self.source, self.wish, arguments, self.processor.identity)

    def _find_nodata(self) -> None:
        """Find pixels without data, if they get a label. Raises OptionError, SourceError."""
        if self.nodata_label is None:
            return
        self.planner.check_label(self.nodata_label, "pixels without data")
        self._rule = nodata_rule(self.source, self.nodata)
        if self._rule is None:
            raise OptionError(
                f"the label of pixels without data is {self.nodata_label}, but the image declares no such value; "
                f"give it "
                "with --nodata"
            )

    def _earlier(self, asked: Mapping[str, Any]) -> Earlier | None:
        """Return the findings of the unfinished run, which this one takes over. Raises OptionError, ResumeError."""
        if not isinstance(self.sink, ResumableSink):
            raise OptionError("only runs into .tif files and .zarr folders can be resumed")
        record = self.sink.unfinished()
        return take_over(record, asked) if record is not None else None

    def _choice(self, earlier: Earlier | None) -> Choice:
        """Return a plan that the processor has room for: fall back to smaller ones as long as a GPU's
        memory runs out.
        """
        while True:
            choice = self._chosen() if earlier is None else self._resumed(earlier)
            if self.part is not None:
                choice = replace(choice, plan=self.part(choice.plan))
            need = self._need(choice.plan)
            try:
                self.processor.ready(choice.plan, need, self.cancellation)
            except DeviceMemoryError as error:
                self.planner.refuse(choice.plan, need, error)
            else:
                return choice

    def _chosen(self) -> Choice:
        """Choose the plan by prediction; if the run will be long, by trial."""
        choice = self.planner.choose(self.source, self.sink, self.wish)
        if not self.wish.trial:
            return choice
        if self.resume or self.statistics is not None or not self.planner.may_try(self.wish):
            return untried(choice, "only new runs whose plan is left open, of networks without statistics, on a CPU")
        candidates = Candidates(
            planner=self.planner,
            source=self.source,
            sink=self.sink,
            wish=self.wish,
            margin_bytes=PASSES_MARGIN_BYTES,
        )
        prefix = Prefix(contract=self.model.contract, processor=self.processor, cancellation=self.cancellation)
        return choose_by_trial(choice, candidates, lambda one: prefix.pixel_s(one, self.planner.budget_bytes))

    def _need(self, plan: Plan) -> MemoryNeed:
        return self.planner.memory_need(plan, self.source, self.sink, apart_bytes=self.wish.apart_bytes)

    def _with_runs_beside(self, plan: Plan, need: MemoryNeed) -> MemoryNeed:
        together = self.planner.side_by_side(plan, need)
        self.beside = together.beside
        self.held_bytes = together.buffer_bytes + together.sink_bytes + together.spare_bytes
        return together

    def _do_afterwards(self) -> None:
        if self.afterwards is None:
            return
        self.source.prepare(ReadPlan(rows=(), columns=()), cache_bytes=0)  # what it keeps is not needed twice
        left = self.planner.budget_bytes - settled_resident_bytes() - PROCESS_MARGIN_BYTES
        self.afterwards(max(0, left - self.wish.apart_bytes))

    def _resumed(self, earlier: Earlier) -> Choice:
        """Return the plan of the earlier run. Raises BudgetError if it no longer fits the memory budget."""
        wish = replace(
            self.wish,
            plan="strip" if earlier.plan == "strip" else "tile",
            tile=earlier.shape,
            lanes=min(earlier.lanes, self.planner.threads),
        )
        choice = self.planner.choose(self.source, self.sink, wish)
        return replace(choice, reason="that of the run that is resumed")

    def _pipeline(
        self,
        plan: Plan,
        need: MemoryNeed,
        constants: Mapping[str, Any],
        is_done: Callable[[Box], bool],
        maps: MapStore | None,
    ) -> Pipeline:
        looked_at = self.model.reads_image or self.wish.background is not None or self.nodata_label is not None
        return Pipeline(
            plan=plan,
            contract=self.model.contract,
            source=self.source if looked_at else Unread(self.source),
            compute=self.processor.compute(plan, need, constants, self.cancellation, maps),
            sink=self.sink,
            progress=self.watcher.progress,
            is_done=is_done,
            background=self.wish.background,
            read=self._read,
            timed=self.timed,
            cancellation=self.cancellation,
            marks=NodataMarks(self._rule, self.nodata_label, plan)
            if self._rule is not None and self.nodata_label is not None
            else None,
        )

    def _read(self) -> None:
        """Report that the last tile was read."""
        self._chunks = self.source.count()
        if self.release_early:
            self.source.prepare(ReadPlan(rows=(), columns=()), cache_bytes=0)
        self.watcher.read()

    def _summary(
        self, choice: Choice, pipeline: Pipeline, need: MemoryNeed, kept_pixels: int, *, computed: bool
    ) -> Summary:
        plan, skipped, budget_bytes = choice.plan, pipeline.skipped, self.planner.budget_bytes
        domain = plan.y.domain.size, plan.x.domain.size
        shape = self.planner.result_spec(plan, self.source).shape
        left_out = skipped.tiles * prod(plan.tile_shape)
        exact = self.tolerance is None or self.tolerance.exact
        return Summary(
            plan=plan.name,
            reason=choice.reason if exact else "the smallest halo within the tolerance",
            predicted_passes=choice.passes,
            bands=plan.bands if isinstance(plan, StripPlan) else 1,
            border=plan.border,
            image=plan.image_shape,
            domain=domain,
            padded_because=why_extended(self.model.contract.geometry, plan.image_shape, domain, plan.border),
            result=shape,
            tile=plan.tile_shape,
            tiles=len(plan),
            wanted_pixels=plan.wanted_pixels,
            computed_pixels=pipeline.plan.computed_pixels - left_out if computed else 0,
            seconds=pipeline.seconds,
            chunks=self._chunks or self.source.count(),
            kept_pixels=kept_pixels,
            skipped_tiles=skipped.tiles,
            skipped_pixels=skipped.pixels,
            processor=self.processor.name,
            budget_bytes=budget_bytes,
            predicted_memory_bytes=max(
                need.needed_bytes + need.granted_cache(budget_bytes) + need.granted_spare(budget_bytes),
                self._found.predicted_bytes if self._found is not None else 0,
            ),
            peak_memory_bytes=peak_resident_bytes(),
            nan=pipeline.values.nan,
            rule=self.model.contract.result.rule,
            verification=self.model.contract.verification,
            notes=notes_of(self.model.contract, self.source, self.sink),
            statistics=self.statistics,
            tolerance=self.tolerance,
            lanes=plan.lanes,
            damage=report_damage(
                self.source,
                self.model.contract.geometry,
                (shape[-2], shape[-1]),
                whole=self.record["normalizers"] is not None or bool(self.model.levels),
            ),
        )


def _nothing_done(_box: Box) -> bool:
    return False


def _pixels_done(plan: Plan, is_done: Callable[[Box], bool]) -> int:
    boxes = (Box(y, x) for y in plan.y.zors for x in plan.x.zors)
    return sum(box.area for box in boxes if box.area and is_done(box))
