"""Session: the first class a user meets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from exactile.contract import Contract, DeployedModel
from exactile.engines.onnx_runtime import OnnxRuntimeEngine, load_library
from exactile.errors import BudgetError, ChannelError, OptionError, PlanError
from exactile.memory import default_budget_bytes, peak_resident_bytes, resident_bytes
from exactile.pipeline.run import Pipeline, StageSeconds
from exactile.pipeline.staging import read_plan
from exactile.plan.border import BORDERS, Border
from exactile.plan.budget import MemoryNeed, choose_plan, format_bytes, least_budget, slot_bytes
from exactile.plan.tiles import AxisDomain, TilePlan
from exactile.sinks.protocol import ResultSpec, Sink, WritePlan
from exactile.sources.protocol import ReadCount, Source

PlanName = Literal["auto", "whole", "tile"]
PLAN_NAMES: tuple[PlanName, ...] = get_args(PlanName)

PROCESS_MARGIN_BYTES = 48 << 20
"""Thread stacks, decoder scratch, allocator slack and the interpreter's own growth during a run."""

ACTIVATION_MARGIN = 1.03
"""The memory model's predictions lie within this factor of what was measured (benchmarks/memory_model.py)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a run did. Sizes in pixels, (height, width)."""

    plan: str
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
    ) -> TilePlan:
        """Choose the tiles for ``source``; ``tile`` (height, width) forces their shape.

        Raises ChannelError, PlanError, and BudgetError when nothing fits the memory budget.
        """
        _check_options(plan, tile, border)
        self._check_source(source)
        image = (source.height, source.width)
        geometry = self.contract.geometry
        if plan == "whole":
            domains = AxisDomain.of(geometry.y, image[0], border), AxisDomain.of(geometry.x, image[1], border)
            chosen = TilePlan.of(geometry, image, border, (domains[0].size, domains[1].size))
        elif tile is not None:
            chosen = TilePlan.of(geometry, image, border, tile)
        else:
            return choose_plan(
                self.contract,
                image,
                border,
                budget_bytes=self._budget_bytes,
                measure=lambda candidate: self.memory_need(candidate, source, sink),
            )
        need = self.memory_need(chosen, source, sink)
        if not need.fits(self._budget_bytes):
            raise BudgetError(
                f"a tile of {chosen.tile_shape[0]}x{chosen.tile_shape[1]} needs about "
                f"{format_bytes(least_budget(need))} and the memory budget is {format_bytes(self._budget_bytes)}; "
                "raise --memory, or leave the choice of the tile to --plan auto"
            )
        return chosen

    def memory_need(self, plan: TilePlan, source: Source, sink: Sink) -> MemoryNeed:
        """Predicted peak memory of running ``plan``, by purpose."""
        memory = self.contract.memory
        height, width = plan.tile_shape
        return MemoryNeed(
            process_bytes=self._process_bytes + PROCESS_MARGIN_BYTES,
            weights_bytes=memory.weights_bytes,
            activation_bytes=int(memory.activation_bytes(height, width) * ACTIVATION_MARGIN),
            buffer_bytes=slot_bytes(self.contract, plan.tile_shape, tiles=len(plan)),
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
        progress: Callable[[int], None] | None = None,
        planned: Callable[[TilePlan], None] | None = None,
    ) -> Summary:
        """Segment ``source`` into ``sink``: equal to one pass over the whole image.

        ``planned`` is called once with the plan, ``progress`` with the number of result pixels of each write.
        On any failure the sink is aborted and the first error raised.
        """
        try:
            chosen = self.plan(source, sink, plan=plan, tile=tile, border=border)
            if planned is not None:
                planned(chosen)
            seconds, need = self._run(chosen, source, sink, progress or (lambda _pixels: None))
        except BaseException:
            sink.abort()
            raise
        return Summary(
            plan=chosen.name,
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
        )

    def _run(
        self, plan: TilePlan, source: Source, sink: Sink, progress: Callable[[int], None]
    ) -> tuple[StageSeconds, MemoryNeed]:
        need = self.memory_need(plan, source, sink)
        sink.begin(self._result_spec(plan))
        source.prepare(read_plan(plan), cache_bytes=need.granted_cache(self._budget_bytes))
        contract = self.contract
        engine = OnnxRuntimeEngine(
            self._model.graph,
            input_name=contract.image.name,
            output_name=contract.result.name,
            tile_shape=plan.tile_shape,
            threads=self._threads,
            activation_bytes=need.activation_bytes,
        )
        try:
            pipeline = Pipeline(plan, contract, source, engine, sink, progress)
            seconds = pipeline.run()
            sink.finish()
        finally:
            engine.close()
        return seconds, need

    def _result_spec(self, plan: TilePlan) -> ResultSpec:
        height, width = plan.result_shape
        result = self.contract.result
        return ResultSpec(height=height, width=width, channels=result.channels, dtype=result.dtype)

    def _check_source(self, source: Source) -> None:
        image = self.contract.image
        if source.channels != image.channels:
            raise ChannelError(
                f"the image has {source.channels} channel(s) and the model takes {image.channels}; choose which with "
                f"--channels, e.g. --channels {','.join(map(str, range(image.channels)))}"
            )
        if np.dtype(source.dtype) != np.dtype(image.dtype):
            raise PlanError(f"the image holds {source.dtype} samples and the model was deployed for {image.dtype}")


def _write_plan(plan: TilePlan) -> WritePlan:
    return WritePlan(rows=plan.y.zors, columns=plan.x.zors)


def _check_options(plan: str, tile: tuple[int, int] | None, border: str) -> None:
    if plan not in PLAN_NAMES:
        raise OptionError(f"plan must be one of {', '.join(PLAN_NAMES)}, got {plan!r}")
    if border not in BORDERS:
        raise OptionError(f"border must be one of {', '.join(BORDERS)}, got {border!r}")
    if plan == "whole" and tile is not None:
        raise OptionError("--plan whole makes one pass; it takes no --tile")
    if tile is not None and min(tile) < 1:
        raise OptionError(f"a tile needs a positive height and width, got {tile[0]}x{tile[1]}")
