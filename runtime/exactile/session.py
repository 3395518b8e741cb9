"""Session: the first class a user meets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from exactile.contract import Contract, DeployedModel
from exactile.contract.error_curve import ErrorCurve
from exactile.contract.tolerance import Tolerance
from exactile.contract.tuning import Tuning
from exactile.image_statistics.measure import Normalizers
from exactile.machine_speed.machine_name import machine_name
from exactile.passes.fixed import FixedStatistics
from exactile.passes.statistics_run import MeasuredImage, StatisticsRun, images_of
from exactile.pipeline.run import Timed
from exactile.plan.background import Background
from exactile.plan.border import Border
from exactile.plan.budget import MemoryNeed
from exactile.plan.choice import Choice
from exactile.plan.prediction import Plan
from exactile.planning import PlanName, Wish
from exactile.runs.image_run import ImageRun, Watcher
from exactile.runs.normalizers import measured_normalizers
from exactile.runs.opened_model import OpenedModel
from exactile.runs.summary import Summary
from exactile.sinks.protocol import ResultSpec, Sink
from exactile.sources.alpha import leave_out_alpha
from exactile.sources.protocol import Source
from exactile.tolerance.measure import CurveWish, measure_curve

if TYPE_CHECKING:
    from exactile.row_stream.stream import RowStream


class Session:
    """A deployed model, ready to segment any number of images.

    ``memory_bytes`` bounds the resident memory of the whole process (default: a safe share of what is free); if it is
    given, the C library is set to return large blocks as soon as they are freed, for the rest of the process. With
    ``keep_engine`` the engine stays open for the next image that needs the same, until ``close``; on a GPU it always
    does. ``device`` and ``engine`` are those of ``exactile.processors.choice.open_processor``: what you ask for is what
    runs, or a DeviceError says why not. ``device_memory_bytes`` bounds what is planned for each GPU (default: a safe
    share of what is free). On a CPU, ``lanes`` engines with a share of the ``threads`` each run concurrently (default:
    as many as are predicted to pay off). Of images that are one tile each, run in the caller's threads, up to
    ``images`` are computed concurrently, each with a share of the threads, if the memory allows it. ``scratch`` is the
    folder for maps that are kept between passes and do not fit into memory (default: that for temporary files),
    ``scratch_bytes`` the most that they may take there (default: what is free minus 1 GiB); if they do not fit either,
    all passes begin at the image.
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
        scratch_bytes: int | None = None,
        lanes: int | None = None,
        images: int = 1,
    ) -> None:
        self._opened = OpenedModel(
            model,
            memory_bytes=memory_bytes,
            threads=threads,
            keep_engine=keep_engine,
            device=device,
            engine=engine,
            device_memory_bytes=device_memory_bytes,
            scratch=scratch,
            scratch_bytes=scratch_bytes,
            lanes=lanes,
            images=images,
        )
        self._model = self._opened.model
        self._planner = self._opened.planner
        self._processor = self._opened.processor

    @property
    def contract(self) -> Contract:
        """The contract of the model: what it takes, what it gives, its geometry and memory."""
        return self._model.contract

    @property
    def has_strips(self) -> bool:
        """Whether there are strips for the processor."""
        return self._model.strips is not None

    @property
    def shapes_are_fixed(self) -> bool:
        """Whether only tiles and strips of built engines can run."""
        space = self._processor.space
        return space is not None and space.engines is not None

    def lacks(self, size: tuple[int, int]) -> bool:
        """Return whether the model would be better if it were deployed for images of ``size``, (height, width)."""
        return self._model.lacks(size)

    @property
    def processor(self) -> str:
        """Name of the processor, for people: ``cpu``, or the GPUs, with the engine and its version."""
        return self._processor.name

    @property
    def processor_identity(self) -> Mapping[str, Any]:
        """What determines the last digits of results, as plain data."""
        return self._processor.identity

    @property
    def budget_bytes(self) -> int:
        """The memory budget, in bytes of resident memory of the process."""
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

    def result_spec(self, plan: Plan, source: Source) -> ResultSpec:
        """Return the specification of the result of ``plan`` for ``source``."""
        return self._planner.result_spec(plan, source)

    def memory_need(self, plan: Plan, source: Source, sink: Sink) -> MemoryNeed:
        """Return the predicted peak memory of running ``plan``, by purpose."""
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
        statistics: FixedStatistics | None = None,
        tolerance: Tolerance | str | None = None,
        trial: bool = False,
    ) -> Summary:
        """Segment ``source`` into ``sink``: equal to one pass over the whole image.

        Tiles that are entirely ``background`` are not computed, and get its label; this works with tiles and labels.

        If the model normalises by statistics of the whole image and ``normalizers`` are not given, ``measure`` finds
        them first; ``measuring`` is then called with the pixels read so far and their total. ``planned`` is called once
        with the plan, ``progress`` with the number of result pixels of each write. Pixels that are ``nodata`` in every
        channel (default: the file's value), or without data by the file's mask or alpha channel, are left out of these
        statistics; ``nodata_label``, if given, is their label. With ``statistics``, a network that takes statistics of
        the whole image uses these, and there are no passes before: the result equals one pass with them, not with the
        image's own. Raises OptionError if they belong to another network. With a ``tolerance``, ``"1e-4"`` of the range
        of scores or ``"labels:1e-5"`` of all labels, tiles get the smallest halo whose error in a sample of tiles stays
        within it: the result is not exact, and the summary reports the error. If it is exceeded, the exact plan is run.
        For networks without statistics of the whole image, on a CPU. On any failure the sink is aborted and the first
        error raised.

        With ``trial``, if the plan is left open and the run will take more than 20 s on a CPU, the most promising plans
        are timed on the image's first steps, at most 5 % of its pixels, and the fastest is taken; without it, the one
        that is predicted to be the fastest.

        With ``resume``, an unfinished run that ``sink`` kept is resumed, with the same plan, to the same bytes;
        ``arguments`` (plain data) must be those of that run, besides image, model, plan, tile and border. Raises
        ResumeError if it was another one. ``trace`` is called with every piece of work that was done:
        ``exactile.trace.Trace().of(name)`` keeps it.
        """
        watcher = Watcher(
            planned=planned or (lambda _plan: None),
            measuring=measuring,
            progress=progress or (lambda _pixels: None),
        )
        try:
            allowed = Tolerance.parse(tolerance) if isinstance(tolerance, str) else tolerance
            wish = Wish(plan=plan, tile=tile, border=border, background=background, tolerance=allowed, trial=trial)
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
            statistics=statistics,
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
        statistics: FixedStatistics | None = None,
        part: Callable[[Plan], Plan] | None = None,
    ) -> ImageRun:
        """Return the run of ``segment``, for callers that run and cancel it in their own threads.

        ``afterwards`` is called when the result is complete, with the bytes that it may take beyond
        ``wish.apart_bytes``. With ``part`` only that part of the plan is run; ``sink`` takes its boxes.
        """
        watcher = watcher or Watcher()
        leave_out_alpha(source, self.contract.image.channels)
        way = self._opened.way(source, sink, wish, statistics, resume=resume)
        return ImageRun(
            model=way.model,
            planner=way.planner,
            processor=way.processor,
            scratch=self._opened.scratch,
            source=source,
            sink=sink,
            wish=way.wish,
            measure=lambda: self._opened.normalizers(source, normalizers, watcher.measuring, nodata),
            watcher=watcher,
            resume=resume,
            arguments=arguments or {},
            release_early=release_early,
            timed=trace,
            nodata=nodata,
            nodata_label=nodata_label,
            afterwards=afterwards,
            statistics=statistics,
            narrowing=self._opened.narrowing(way, source, sink),
            part=part,
        )

    def error_curve(
        self,
        images: Mapping[str, Source],
        wish: CurveWish | None = None,
        *,
        progress: Callable[[str, int, int], None] | None = None,
        nodata: float | None = None,
    ) -> ErrorCurve:
        """Return the error of halos smaller than the exact one, on ``images`` by name.

        Tiles with each halo are compared with exact ones at some zones of each image; and the effect of changing all
        pixels beyond that distance is measured. For networks without statistics of the whole image, on a CPU.

        Raises OptionError, PlanError if an image has no seam, BudgetError, SourceError.
        """
        found = [(name, self._opened.tile_runs(source, nodata)) for name, source in images.items()]
        return measure_curve(self._model, found, wish or CurveWish(), progress or (lambda _what, _done, _total: None))

    def tune(self, *, seconds: float = 120.0, progress: Callable[[int, int], None] | None = None) -> Tuning:
        """Time tiles and strips of usual shapes on this machine, for ``seconds`` or a little longer.

        With ``dataclasses.replace(model, tuning=...)`` plans are chosen by it, if the processor, the version of ONNX
        Runtime and the number of threads are the same. ``progress`` is called with the shapes measured so far, and
        their total.

        Raises OptionError on a GPU, and for networks that take statistics of the whole image or cannot be tiled.
        """
        from exactile.tuning.measure import Tuner

        tuner = Tuner(
            model=self._model,
            planner=self._planner,
            processor=self._processor,
            machine=machine_name(self._opened.other_engine),
            seconds=seconds,
            progress=progress or (lambda _done, _total: None),
        )
        return tuner.run()

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
        """Return offset and scale by which the model normalises ``source``: one or two passes over it, in bounded
        memory.

        Pixels that are ``nodata`` in every channel (default: the file's value), or without data by the file's masks,
        are left out.

        Raises OptionError if the model does not take statistics of the whole image, SourceError.
        """
        return measured_normalizers(self.contract.image, self._planner, source, measuring=measuring, nodata=nodata)

    def measure_statistics(
        self,
        sources: Sequence[Source],
        *,
        tile: tuple[int, int] | None = None,
        progress: Callable[[int, int], None] | None = None,
        nodata: float | None = None,
    ) -> FixedStatistics:
        """Return the statistics of the whole image that the network takes, over all pixels of ``sources`` together.

        One pass over all of them for each level of statistics, in tiles (default: by cost; ``tile`` is (height,
        width)). ``progress`` is called with the image pixels done in all passes, and their total. ``nodata`` is as for
        ``measure``, if the model normalises by statistics of each image.

        Raises OptionError if the model takes no such statistics or ``sources`` are of several types, ChannelError,
        PlanError, SourceError.
        """
        return StatisticsRun(
            images=images_of(sources, lambda source: self.measured_image(source, nodata)),
            tile=tile,
            progress=progress or (lambda _done, _total: None),
        ).run()

    def measured_image(self, source: Source, nodata: float | None = None) -> MeasuredImage:
        """Return ``source`` for a ``StatisticsRun``."""
        leave_out_alpha(source, self.contract.image.channels)
        return MeasuredImage(
            model=self._model,
            planner=self._planner,
            processor=self._processor,
            source=source,
            normalizers=lambda: self._opened.normalizers(source, nodata=nodata),
        )

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
        statistics: FixedStatistics | None = None,
    ) -> RowStream:
        """Return a stream for an image of ``width`` pixels and samples of ``dtype`` that arrives in rows.

        Results come strip by strip, equal to those of ``segment`` for the complete image. ``rows`` is the height of a
        strip (default: by predicted time within the memory budget): lower strips give results earlier and cost more. A
        ``sink`` is written as results come if ``height``, the number of rows to come, is given; else results are kept
        in a temporary file beside the output until the height is known. If a network's strips depend on the height,
        modulo the stride, it must be given. A model that normalises by statistics of the whole image needs them
        beforehand: ``normalizers``, by ``measure`` of an overview, or from an earlier scan; a network that takes
        statistics of the whole image needs ``statistics``, by ``measure_statistics``.

        Raises PlanError if the network does not allow strips, BudgetError, StreamError.
        """
        from exactile.row_stream.opening import open_stream  # what most sessions never do is imported on demand

        return open_stream(
            self._opened,
            width=width,
            dtype=dtype,
            rows=rows,
            border=border,
            height=height,
            sink=sink,
            normalizers=normalizers,
            statistics=statistics,
            segment=self.segment,
        )
