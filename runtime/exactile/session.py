"""Session: the first class a user meets."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.background import Background
from exactile.contract import Contract, DeployedModel, StripModel
from exactile.errors import OptionError, PlanError, StreamError
from exactile.image_run import ImageRun, Watcher
from exactile.memory import default_budget_bytes, return_large_blocks_at_once, settled_resident_bytes
from exactile.nodata import nodata_rule
from exactile.passes.scratch import free_bytes
from exactile.passes.store import most_kept_bytes
from exactile.pipeline.run import Timed
from exactile.plan.arriving import ArrivingRows
from exactile.plan.arriving_strips import strips_for_stream
from exactile.plan.border import Border
from exactile.plan.budget import MemoryNeed
from exactile.plan.built import check_strips
from exactile.plan.choice import Choice, Plan
from exactile.plan.strips import StripPlan, least_rows, with_highest_last
from exactile.planning import PlanName, Planner, Wish
from exactile.processors.choice import open_processor
from exactile.processors.host import HostProcessor
from exactile.processors.protocol import Processor
from exactile.sinks.nothing import NoSink
from exactile.sinks.protocol import Sink
from exactile.sources.alpha import leave_out_alpha
from exactile.sources.protocol import Source
from exactile.statistics import Normalizers, constants_of, measure, passes
from exactile.stream import KeptRows, RowStream
from exactile.summary import Summary

NOMINAL_STREAM_ROWS = 4096
"""A stream's memory is predicted for an image of so many rows; more rows take no more memory."""


MOST_KEPT_SHARE = 0.5
"""Of the memory that a run may take, for maps that are kept between passes; others go to the disk."""


class Session:
    """A deployed model, ready to segment any number of images.

    ``memory_bytes`` bounds the resident memory of the whole process (default: a safe share of what is free); where it
    is given, the C library is told to give large blocks back as soon as they are freed, for the rest of the process.
    With ``keep_engine`` the engine stays open for the next image that needs the same, until ``close``; on a GPU it
    always does. ``device`` and ``engine`` are those of ``exactile.processors.choice.open_processor``: what is asked for
    is what runs, or a DeviceError says why not. ``device_memory_bytes`` bounds what is planned for each GPU (default:
    a safe share of what is free). ``scratch`` is the folder for maps that are kept between passes and do not fit into
    memory (default: that for temporary files).
    """

    def __init__(
        self,
        model: DeployedModel,
        *,
        memory_bytes: int | None = None,
        threads: int | None = None,
        keep_engine: bool = False,
        device: str = "auto",
        engine: str = "auto",
        device_memory_bytes: int | None = None,
        scratch: Path | None = None,
    ) -> None:
        if memory_bytes is not None and memory_bytes < 1:
            raise OptionError(f"the memory budget must be positive, got {memory_bytes} bytes")
        if threads is not None and threads < 1:
            raise OptionError(f"at least one thread is needed, got {threads}")
        self._threads = threads
        self._scratch = scratch or Path(tempfile.gettempdir())
        if not self._scratch.is_dir():
            raise OptionError(f"--scratch {self._scratch}: there is no such folder")
        self._processor = open_processor(
            model,
            device=device,
            engine=engine,
            device_memory_bytes=device_memory_bytes,
            threads=threads,
            keep=keep_engine,
        )
        if self._processor.space is not None:  # graphs on GPUs are not told where a tile lies
            model = model.without_placed
        self._model = model
        if memory_bytes is not None:
            return_large_blocks_at_once()
        process_bytes = settled_resident_bytes()
        budget_bytes = memory_bytes if memory_bytes is not None else default_budget_bytes()
        self._planner = Planner(
            model,
            budget_bytes=budget_bytes,
            process_bytes=process_bytes,
            space=self._processor.space,
            engine_stays=keep_engine,
        )

    @property
    def contract(self) -> Contract:
        return self._model.contract

    def lacks(self, size: tuple[int, int]) -> bool:
        """Whether the model would do better if it were deployed for images of ``size``, (height, width)."""
        return self._model.lacks(size)

    @property
    def processor(self) -> str:
        """What computes, for people: ``cpu``, or the GPUs, with the engine and its version."""
        return self._processor.name

    @property
    def budget_bytes(self) -> int:
        return self._planner.budget_bytes

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
        leave_out_alpha(source, self.contract.image.channels)
        return self._planner.choose(source, sink, Wish(plan=plan, tile=tile, border=border))

    def memory_need(self, plan: Plan, source: Source, sink: Sink) -> MemoryNeed:
        """Predicted peak memory of running ``plan``, by purpose."""
        return self._planner.memory_need(plan, source, sink)

    def segment(
        self,
        source: Source,
        sink: Sink,
        *,
        plan: PlanName = "auto",
        tile: tuple[int, int] | None = None,
        border: Border = "model",
        background: Background | None = None,
        normalizers: Normalizers | None = None,
        progress: Callable[[int], None] | None = None,
        planned: Callable[[Plan], None] | None = None,
        measuring: Callable[[int, int], None] | None = None,
        resume: bool = False,
        arguments: Mapping[str, Any] | None = None,
        trace: Timed | None = None,
        nodata: float | None = None,
        nodata_label: int | None = None,
    ) -> Summary:
        """Segment ``source`` into ``sink``: equal to one pass over the whole image.

        Tiles that are all ``background`` are not computed, and have its label; it goes with tiles and labels.

        Where the model normalises by statistics of the whole image and ``normalizers`` are not given, ``measure`` finds
        them first; ``measuring`` is then called with pixels read so far and in all. ``planned`` is called once with
        the plan, ``progress`` with the number of result pixels of each write.
        Pixels that are ``nodata`` in every channel (default: what the file says), or by the file's mask or alpha
        channel, are left out of these statistics; labels of such pixels are ``nodata_label``, where it is given.
        On any failure the sink is aborted and the first error raised.

        With ``resume``, an unfinished run that ``sink`` kept is gone on with, by the same plan, to the same bytes;
        ``arguments`` (plain data) is what it must have been called with, beside image, model, plan, tile and border.
        Raises ResumeError where it was another one. ``trace`` is told when every piece of work was done:
        ``exactile.trace.Trace().of(name)`` keeps it.
        """
        watcher = Watcher(
            planned=planned or (lambda _plan: None),
            measuring=measuring,
            progress=progress or (lambda _pixels: None),
        )
        try:
            wish = Wish(plan=plan, tile=tile, border=border, background=background)
        except BaseException:
            sink.abort()
            raise
        return self.image_run(
            source,
            sink,
            wish,
            normalizers=normalizers,
            watcher=watcher,
            resume=resume,
            arguments=arguments,
            trace=trace,
            nodata=nodata,
            nodata_label=nodata_label,
        ).run()

    def image_run(
        self,
        source: Source,
        sink: Sink,
        wish: Wish,
        *,
        normalizers: Normalizers | None = None,
        watcher: Watcher | None = None,
        resume: bool = False,
        arguments: Mapping[str, Any] | None = None,
        release_early: bool = False,
        trace: Timed | None = None,
        nodata: float | None = None,
        nodata_label: int | None = None,
        afterwards: Callable[[int], None] | None = None,
    ) -> ImageRun:
        """As ``segment``, for who wants to run and cancel it in threads of his own.

        ``afterwards`` is called when the result is complete, with the bytes that it may take beyond
        ``wish.apart_bytes``.
        """
        watcher = watcher or Watcher()
        leave_out_alpha(source, self.contract.image.channels)
        keeping = self._keeping(source, wish)
        model, planner, processor = keeping or (self._model, self._planner, self._processor)
        return ImageRun(
            model=model,
            planner=planner,
            processor=processor,
            scratch=self._scratch,
            source=source,
            sink=sink,
            wish=wish,
            measure=lambda: self._normalizers(source, normalizers, watcher.measuring, nodata),
            watcher=watcher,
            resume=resume,
            arguments=arguments or {},
            release_early=release_early,
            timed=trace,
            nodata=nodata,
            nodata_label=nodata_label,
            afterwards=afterwards,
        )

    def _keeping(self, source: Source, wish: Wish) -> tuple[DeployedModel, Planner, Processor] | None:
        """The way over maps that are kept between passes, where memory and disk have room for them."""
        model = self._model.keeping
        if model is None or wish.plan in {"strip", "whole"} or model.image_size != (source.height, source.width):
            return None
        process_bytes, wanted = self._planner.process_bytes, most_kept_bytes(model, model.image_size)
        most = max(0, int((self.budget_bytes - process_bytes) * MOST_KEPT_SHARE))
        if wanted > most + free_bytes(self._scratch):
            return None
        planner = Planner(
            model, budget_bytes=self.budget_bytes, process_bytes=process_bytes, kept_bytes=min(wanted, most)
        )
        return model, planner, HostProcessor(model, threads=self._threads, keep=False)

    def close(self) -> None:
        """Release what is kept for the next image, and the GPUs; safe to call twice."""
        self._processor.close()

    def measure(
        self,
        source: Source,
        measuring: Callable[[int, int], None] | None = None,
        *,
        nodata: float | None = None,
    ) -> Normalizers:
        """Offset and scale by which the model normalises ``source``: one or two passes over it, in bounded memory.

        Pixels that are ``nodata`` in every channel (default: what the file says), or by the file's masks, are left out.

        Raises OptionError where the model does not ask for statistics of the whole image, SourceError.
        """
        wanted = self.contract.image.statistics
        if wanted is None:
            raise OptionError("this model normalises by fixed numbers; there is nothing to measure")
        leave_out_alpha(source, self.contract.image.channels)
        self._planner.check_source(source)
        done, total = 0, passes(source, wanted) * source.height * source.width

        def advance(pixels: int) -> None:
            nonlocal done
            done += pixels
            if measuring is not None:
                measuring(done, total)

        rule = nodata_rule(source, nodata)
        cache_bytes = self._planner.measuring_cache(source)
        try:
            return measure(source, wanted, advance, cache_bytes=cache_bytes, nodata=rule)
        finally:
            if rule is not None:
                rule.close()

    def _normalizers(
        self,
        source: Source,
        given: Normalizers | None,
        measuring: Callable[[int, int], None] | None,
        nodata: float | None,
    ) -> Normalizers | None:
        if self.contract.image.statistics is None or given is not None:
            return given
        return self.measure(source, measuring, nodata=nodata)

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
        are kept in a temporary file beside the output until the height is known. Where a network's strips depend on the
        height, modulo the stride, it must be given. A model that normalises by statistics
        of the whole image needs them beforehand: ``normalizers``, by ``measure`` of an overview, or from a scan before.

        Raises PlanError where the network does not allow strips, BudgetError, StreamError.
        """
        if self._model.levels:
            raise PlanError(
                f"{self.contract.model_name} takes statistics of the whole image, which rows that are still to come "
                "are part of: run it over the complete image"
            )
        wish = Wish(plan="strip", border=border)
        along, strips = strips_for_stream(self._model, width, height, border)
        if np.dtype(dtype) != np.dtype(self.contract.image.dtype):
            raise StreamError(
                f"rows of {dtype} are announced and the model was deployed for {self.contract.image.dtype}"
            )
        constants = constants_of(self.contract.image, normalizers)
        image = self.contract.image
        kept = KeptRows(width=width, channels=image.channels, dtype=np.dtype(image.dtype))
        nominal = NOMINAL_STREAM_ROWS + 4 * least_rows(strips)
        last = along.others[0] if along.others and height is not None else along
        kept.height = nominal + (last.remainder - nominal) % last.stride
        output: Sink = sink if sink is not None else NoSink()
        if rows is None:
            plan = self._planner.choose(kept, output, wish).plan
        else:
            plan = self._planner.widest_band(kept, output, rows, border)
        if not isinstance(plan, StripPlan):
            raise PlanError(f"{kept.height} rows are too few for strips of this network")
        plan = with_highest_last(plan, strips, along)
        space = self._processor.space
        if space is not None and space.engines is not None:
            check_strips(plan, space.engines)
        need = self.memory_need(plan, kept, output)
        self._planner.save(plan, kept, output, need)
        return RowStream(
            contract=self.contract,
            rows=ArrivingRows(along, strips, plan.rows, border, first_rows=self._first_rows(strips, plan)),
            columns=plan.x,
            border=border,
            engine=lambda: self._processor.strip_engine(plan, need, constants),
            whole=lambda source: self._whole_array(source, border, normalizers),
            sink=sink,
            height=height,
        )

    def _whole_array(self, source: Source, border: Border, normalizers: Normalizers | None) -> NDArray[Any]:
        from exactile.sinks.array import ArraySink

        sink = ArraySink()
        self.segment(source, sink, plan="strip", border=border, normalizers=normalizers)
        return sink.result

    def _first_rows(self, strips: StripModel, plan: StripPlan) -> int:
        """Rows of a stream's first strip: as few as can be, but where engines were built for those of the plan."""
        space = self._processor.space
        return strips.startup_rows if space is None or space.engines is None else plan.y.heights[0]
