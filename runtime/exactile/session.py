"""Session: the first class a user meets."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from exactile.contract import Contract, DeployedModel, StripModel
from exactile.engines.onnx_runtime import OnnxRuntimeEngine, load_library
from exactile.engines.protocol import Engine
from exactile.engines.strip_engine import StripEngine
from exactile.errors import BudgetError, ChannelError, OptionError, PlanError, StreamError
from exactile.memory import default_budget_bytes, peak_resident_bytes, resident_bytes
from exactile.pipeline.run import Pipeline, StageSeconds
from exactile.pipeline.staging import read_plan
from exactile.plan.arriving import ArrivingRows
from exactile.plan.border import BORDERS, Border
from exactile.plan.budget import MemoryNeed, axis_candidates, choose_tiles, format_bytes, least_budget, slot_bytes
from exactile.plan.choice import MOST_BANDS, Choice, Plan, choose, choose_strips, predicted_passes, strip_plan
from exactile.plan.strips import StripPlan, least_rows
from exactile.plan.tiles import AxisDomain, TilePlan
from exactile.sinks.protocol import ResultSpec, Sink, WritePlan
from exactile.sources.damage import NO_DAMAGE, DamageReport, report_damage
from exactile.sources.protocol import ReadCount, Source
from exactile.statistics import Normalizers, measure, passes
from exactile.stream import KeptRows, NoSink, RowStream

PlanName = Literal["auto", "whole", "tile", "strip"]
_UNIT = {"whole": "pass", "tile": "tile", "strip": "strip"}
PLAN_NAMES: tuple[PlanName, ...] = get_args(PlanName)

PROCESS_MARGIN_BYTES = 48 << 20
"""Thread stacks, decoder scratch, allocator slack and the interpreter's own growth during a run."""

NOMINAL_STREAM_ROWS = 4096
"""A stream's memory is predicted for an image of so many rows; more rows take no more memory."""

ACTIVATION_MARGIN = 1.03
"""The memory model's predictions lie within this factor of what was measured (benchmarks/memory_model.py)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a run did. Sizes in pixels, (height, width)."""

    plan: str
    reason: str
    predicted_passes: float
    bands: int
    border: Border
    image: tuple[int, int]
    domain: tuple[int, int]
    result: tuple[int, ...]
    tile: tuple[int, int]
    tiles: int
    wanted_pixels: int
    computed_pixels: int
    seconds: StageSeconds
    chunks: ReadCount
    budget_bytes: int
    predicted_memory_bytes: int
    peak_memory_bytes: int
    damage: DamageReport = NO_DAMAGE

    @property
    def megapixels_per_second(self) -> float:
        return self.wanted_pixels / 1e6 / max(self.seconds.total, 1e-9)


class Session:
    """A deployed model, ready to segment any number of images.

    ``memory_bytes`` bounds the resident memory of the whole process (default: a safe share of what is free).
    """

    def __init__(self, model: DeployedModel, *, memory_bytes: int | None = None, threads: int | None = None) -> None:
        if memory_bytes is not None and memory_bytes < 1:
            raise OptionError(f"the memory budget must be positive, got {memory_bytes} bytes")
        if threads is not None and threads < 1:
            raise OptionError(f"at least one thread is needed, got {threads}")
        load_library()
        self._model = model
        self._threads = threads
        self._process_bytes = resident_bytes()
        self._budget_bytes = memory_bytes if memory_bytes is not None else default_budget_bytes()

    @property
    def contract(self) -> Contract:
        return self._model.contract

    @property
    def budget_bytes(self) -> int:
        return self._budget_bytes

    def plan(
        self,
        source: Source,
        sink: Sink,
        *,
        plan: PlanName = "auto",
        tile: tuple[int, int] | None = None,
        border: Border = "model",
    ) -> Choice:
        """Choose the plan for ``source``; ``tile`` forces its shape: (height, width), or strip rows and band width.

        Raises ChannelError, PlanError, and BudgetError when nothing fits the memory budget.
        """
        _check_options(plan, tile, border)
        self._check_source(source)
        image = (source.height, source.width)

        def measure(candidate: Plan) -> MemoryNeed:
            return self.memory_need(candidate, source, sink)

        if plan == "auto" and tile is None:
            return choose(self._model, image, border, budget_bytes=self._budget_bytes, measure=measure)
        chosen = self._asked_plan(image, plan, tile, border, measure)
        need = measure(chosen)
        if not need.fits(self._budget_bytes):
            raise BudgetError(
                f"a {_UNIT[chosen.name]} of {chosen.tile_shape[0]}x{chosen.tile_shape[1]} needs about "
                f"{format_bytes(least_budget(need))} and the memory budget is {format_bytes(self._budget_bytes)}; "
                "raise --memory, or leave the choice to --plan auto"
            )
        return Choice(plan=chosen, passes=predicted_passes(chosen, self._model.strips), reason="as asked for")

    def _asked_plan(
        self,
        image: tuple[int, int],
        plan: PlanName,
        tile: tuple[int, int] | None,
        border: Border,
        measure: Callable[[Plan], MemoryNeed],
    ) -> Plan:
        geometry = self.contract.geometry
        if plan == "whole":
            domains = AxisDomain.of(geometry.y, image[0], border), AxisDomain.of(geometry.x, image[1], border)
            return TilePlan.of(geometry, image, border, (domains[0].size, domains[1].size))
        if plan == "strip":
            if tile is None:
                return choose_strips(self._model, image, border, budget_bytes=self._budget_bytes, measure=measure)
            return strip_plan(self._model, image, border, rows=tile[0], band=tile[1])
        if tile is None:
            return choose_tiles(self.contract, image, border, budget_bytes=self._budget_bytes, measure=measure)
        return TilePlan.of(geometry, image, border, tile)

    def memory_need(self, plan: Plan, source: Source, sink: Sink) -> MemoryNeed:
        """Predicted peak memory of running ``plan``, by purpose."""
        memory = self.contract.memory
        activations, carries = memory.activation_bytes(*plan.tile_shape), 0
        weights_bytes = memory.weights_bytes
        if isinstance(plan, StripPlan) and self._model.strips is not None:
            strips = self._model.strips
            runs = [(strips.graphs[role].memory, rows) for role, rows in plan.y.highest.items()]
            activations = max(run.activation_bytes(rows, plan.x.tile) for run, rows in runs)
            weights_bytes = max(run.weights_bytes for run, _ in runs)
            carries = 2 * plan.bands * strips.carry_bytes(plan.x.tile)
        return MemoryNeed(
            process_bytes=self._process_bytes + PROCESS_MARGIN_BYTES,
            weights_bytes=weights_bytes,
            activation_bytes=int(activations * ACTIVATION_MARGIN),
            buffer_bytes=slot_bytes(self.contract, plan) + carries,
            sink_bytes=sink.buffer_bytes(self._result_spec(plan), _write_plan(plan)),
            cache_bytes=source.cache_bytes(read_plan(plan)),
        )

    def segment(
        self,
        source: Source,
        sink: Sink,
        *,
        plan: PlanName = "auto",
        tile: tuple[int, int] | None = None,
        border: Border = "model",
        normalizers: Normalizers | None = None,
        progress: Callable[[int], None] | None = None,
        planned: Callable[[Plan], None] | None = None,
        measuring: Callable[[int, int], None] | None = None,
    ) -> Summary:
        """Segment ``source`` into ``sink``: equal to one pass over the whole image.

        Where the model normalises by statistics of the whole image and ``normalizers`` are not given, ``measure`` finds
        them first; ``measuring`` is then called with pixels read so far and in all. ``planned`` is called once with
        the plan, ``progress`` with the number of result pixels of each write.
        On any failure the sink is aborted and the first error raised.
        """
        try:
            choice = self.plan(source, sink, plan=plan, tile=tile, border=border)
            chosen = choice.plan
            if planned is not None:
                planned(chosen)
            begin = time.perf_counter()
            found = self._normalizers(source, normalizers, measuring)
            measured_s = time.perf_counter() - begin
            seconds, need = self._run(chosen, source, sink, progress or (lambda _pixels: None), found)
            seconds.measure, seconds.total = measured_s, seconds.total + measured_s
        except BaseException:
            sink.abort()
            raise
        return Summary(
            plan=chosen.name,
            reason=choice.reason,
            predicted_passes=choice.passes,
            bands=chosen.bands if isinstance(chosen, StripPlan) else 1,
            border=border,
            image=chosen.image_shape,
            domain=(chosen.y.domain.size, chosen.x.domain.size),
            result=self._result_spec(chosen).shape,
            tile=chosen.tile_shape,
            tiles=len(chosen),
            wanted_pixels=chosen.wanted_pixels,
            computed_pixels=chosen.computed_pixels,
            seconds=seconds,
            chunks=source.count(),
            budget_bytes=self._budget_bytes,
            predicted_memory_bytes=need.needed_bytes + need.granted_cache(self._budget_bytes),
            peak_memory_bytes=peak_resident_bytes(),
            damage=self._damage(source, chosen, measured=found is not None and normalizers is None),
        )

    def _damage(self, source: Source, plan: Plan, *, measured: bool) -> DamageReport:
        shape = self._result_spec(plan).shape
        return report_damage(source, self.contract.geometry, (shape[-2], shape[-1]), whole=measured)

    def measure(self, source: Source, measuring: Callable[[int, int], None] | None = None) -> Normalizers:
        """Offset and scale by which the model normalises ``source``: one or two passes over it, in bounded memory.

        Raises OptionError where the model does not ask for statistics of the whole image, SourceError.
        """
        wanted = self.contract.image.statistics
        if wanted is None:
            raise OptionError("this model normalises by fixed numbers; there is nothing to measure")
        self._check_source(source)
        done, total = 0, passes(source, wanted) * source.height * source.width

        def advance(pixels: int) -> None:
            nonlocal done
            done += pixels
            if measuring is not None:
                measuring(done, total)

        return measure(source, wanted, advance, cache_bytes=self._budget_bytes // 4)

    def _normalizers(
        self, source: Source, given: Normalizers | None, measuring: Callable[[int, int], None] | None
    ) -> Normalizers | None:
        if self.contract.image.statistics is None or given is not None:
            return given
        return self.measure(source, measuring)

    def _constants(self, normalizers: Normalizers | None) -> dict[str, NDArray[Any]]:
        """The graph's inputs beside the image. Raises OptionError where they do not fit."""
        wanted, channels = self.contract.image.statistics, self.contract.image.channels
        if wanted is None:
            if normalizers is not None:
                raise OptionError("this model normalises by fixed numbers; it takes no normalizers")
            return {}
        if normalizers is None:
            raise OptionError("this model normalises by statistics of the whole image; give normalizers")
        found = {wanted.offset_name: normalizers.offset, wanted.scale_name: normalizers.scale}
        if any(np.shape(values) != (channels,) for values in found.values()):
            raise OptionError(f"normalizers need one offset and one scale for each of {channels} channel(s)")
        return {name: np.ascontiguousarray(values, np.float32).reshape(1, -1, 1, 1) for name, values in found.items()}

    def stream(
        self,
        *,
        width: int,
        dtype: str | np.dtype[Any],
        rows: int | None = None,
        border: Border = "model",
        height: int | None = None,
        sink: Sink | None = None,
        normalizers: Normalizers | None = None,
    ) -> RowStream:
        """A stream for an image of ``width`` pixels and samples of ``dtype`` that arrives in rows.

        Results come strip by strip, the same as ``segment`` gives for the complete image. ``rows`` is the height of
        a strip (default: by predicted time within the memory budget): lower strips give results earlier and cost
        more. A ``sink`` is written as results come if ``height``, the number of rows to come, is given; else results
        are kept in a temporary file beside the output until the height is known. A model that normalises by statistics
        of the whole image needs them beforehand: ``normalizers``, by ``measure`` of an overview, or from a scan before.

        Raises PlanError where the network does not allow strips, BudgetError, StreamError.
        """
        _check_options("strip", None, border)
        strips = self._model.strips
        if strips is None:
            raise PlanError(f"this network cannot be run in strips: {self._model.no_strips_reason}")
        if np.dtype(dtype) != np.dtype(self.contract.image.dtype):
            raise StreamError(
                f"rows of {dtype} are announced and the model was deployed for {self.contract.image.dtype}"
            )
        constants = self._constants(normalizers)
        image = self.contract.image
        kept = KeptRows(width=width, channels=image.channels, dtype=np.dtype(image.dtype))
        kept.height = NOMINAL_STREAM_ROWS + 4 * least_rows(strips)
        output: Sink = sink if sink is not None else NoSink()
        if rows is None:
            plan = self.plan(kept, output, plan="strip", border=border).plan
        else:
            plan = self._widest_band(kept, output, rows, border)
        if not isinstance(plan, StripPlan):
            raise PlanError(f"{kept.height} rows are too few for strips of this network")
        need = self.memory_need(plan, kept, output)
        return RowStream(
            contract=self.contract,
            rows=ArrivingRows(self.contract.geometry.y, strips, plan.rows, border),
            columns=plan.x,
            border=border,
            engine=lambda: self._strip_engine(strips, plan, need, constants),
            whole=lambda source: self._whole_array(source, border, normalizers),
            sink=sink,
            height=height,
        )

    def _widest_band(self, source: Source, sink: Sink, rows: int, border: Border) -> Plan:
        """Strips of ``rows`` rows in as few bands as fit the budget."""
        geometry, domain = self.contract.geometry, AxisDomain.of(self.contract.geometry.x, source.width, border)
        need = None
        for band, _count in axis_candidates(domain)[:MOST_BANDS]:
            plan = strip_plan(self._model, (source.height, source.width), border, rows=rows, band=band)
            need = self.memory_need(plan, source, sink)
            if need.fits(self._budget_bytes):
                return plan
        least = format_bytes(least_budget(need)) if need is not None else "more"
        raise BudgetError(
            f"strips of {rows} rows (stride {geometry.y.stride}) need about {least} and the memory budget is "
            f"{format_bytes(self._budget_bytes)}; use lower strips, or raise the budget"
        )

    def _whole_array(self, source: Source, border: Border, normalizers: Normalizers | None) -> NDArray[Any]:
        from exactile.sinks.array import ArraySink

        sink = ArraySink()
        self.segment(source, sink, plan="strip", border=border, normalizers=normalizers)
        return sink.result

    def _run(
        self,
        plan: Plan,
        source: Source,
        sink: Sink,
        progress: Callable[[int], None],
        normalizers: Normalizers | None,
    ) -> tuple[StageSeconds, MemoryNeed]:
        need, constants = self.memory_need(plan, source, sink), self._constants(normalizers)
        sink.begin(self._result_spec(plan))
        source.prepare(read_plan(plan), cache_bytes=need.granted_cache(self._budget_bytes))
        begin = time.perf_counter()
        engine = self._engine(plan, need, constants)
        opening_s = time.perf_counter() - begin
        try:
            pipeline = Pipeline(plan, self.contract, source, engine, sink, progress)
            seconds = pipeline.run()
            seconds.open = opening_s + (engine.opening_s if isinstance(engine, StripEngine) else 0.0)
            seconds.total += opening_s
            sink.finish()
        finally:
            engine.close()
        return seconds, need

    def _engine(self, plan: Plan, need: MemoryNeed, constants: Mapping[str, NDArray[Any]]) -> Engine:
        contract, strips = self.contract, self._model.strips
        if isinstance(plan, StripPlan) and strips is not None:
            return self._strip_engine(strips, plan, need, constants)
        return OnnxRuntimeEngine(
            self._model.graph,
            input_name=contract.image.name,
            output_name=contract.result.name,
            tile_shape=plan.tile_shape,
            threads=self._threads,
            activation_bytes=need.activation_bytes,
            weights=self._model.weights,
            claims=self._model.claims,
            constants=constants,
        )

    def _strip_engine(
        self, strips: StripModel, plan: StripPlan, need: MemoryNeed, constants: Mapping[str, NDArray[Any]]
    ) -> StripEngine:
        return StripEngine(
            strips,
            self.contract,
            band_width=plan.x.tile,
            bands=plan.bands,
            threads=self._threads,
            activation_bytes=need.activation_bytes,
            claims=self._model.claims,
            constants=constants,
        )

    def _result_spec(self, plan: Plan) -> ResultSpec:
        height, width = plan.result_shape
        result = self.contract.result
        return ResultSpec(height=height, width=width, channels=result.channels, dtype=result.dtype)

    def _check_source(self, source: Source) -> None:
        image = self.contract.image
        if source.channels != image.channels:
            raise ChannelError(
                f"the image has {source.channels} channel(s) and the model takes {image.channels}; choose which with "
                f"--channels, e.g. --channels {','.join(map(str, range(min(image.channels, 16))))}"
            )
        if np.dtype(source.dtype) != np.dtype(image.dtype):
            raise PlanError(f"the image holds {source.dtype} samples and the model was deployed for {image.dtype}")


def _write_plan(plan: Plan) -> WritePlan:
    return WritePlan(rows=tuple(zor for zor in plan.y.zors if zor.length), columns=plan.x.zors)


def _check_options(plan: str, tile: tuple[int, int] | None, border: str) -> None:
    if plan not in PLAN_NAMES:
        raise OptionError(f"plan must be one of {', '.join(PLAN_NAMES)}, got {plan!r}")
    if border not in BORDERS:
        raise OptionError(f"border must be one of {', '.join(BORDERS)}, got {border!r}")
    if plan == "whole" and tile is not None:
        raise OptionError("--plan whole makes one pass; it takes no --tile")
    if tile is not None and min(tile) < 1:
        raise OptionError(f"a tile needs a positive height and width, got {tile[0]}x{tile[1]}")
