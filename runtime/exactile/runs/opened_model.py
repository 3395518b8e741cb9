"""A model on the processor that runs it, with the planners of its runs."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from exactile.contract import DeployedModel
from exactile.engines.host_families import OnnxRuntimeFamily
from exactile.engines.threads import compute_threads
from exactile.errors import ExactileError, OptionError
from exactile.image_statistics.measure import Normalizers, constants_of
from exactile.machine.architecture import GPU
from exactile.machine.memory import default_budget_bytes, return_large_blocks_at_once, settled_resident_bytes
from exactile.passes.fixed import FixedStatistics
from exactile.plan.engine_memory import ONNX_RUNTIME_MEMORY
from exactile.planning import Planner, Wish
from exactile.processors.choice import open_processor
from exactile.processors.host import HostProcessor
from exactile.runs.normalizers import Measuring, measured_normalizers
from exactile.runs.ways import Way, Ways
from exactile.sinks.nothing import NoSink
from exactile.sinks.protocol import Sink
from exactile.sources.alpha import leave_out_alpha
from exactile.sources.protocol import Source
from exactile.tolerance.local import check_measurable, check_tolerance
from exactile.tolerance.narrowing import Narrowing
from exactile.tolerance.tile_runs import TileRuns


class OpenedModel:
    """A model within the limits of a ``Session``, whose arguments these are.

    ``model`` is the one for the processor, ``planner`` plans its runs; ``planner_of`` makes planners for other forms of
    it. ``other_engine`` is the name of an engine that is not ONNX Runtime.
    """

    def __init__(
        self,
        model: DeployedModel,
        *,
        memory_bytes: int | None,
        threads: int | None,
        keep_engine: bool,
        device: str,
        engine: str,
        device_memory_bytes: int | None,
        scratch: Path | None,
        scratch_bytes: int | None,
        lanes: int | None,
        images: int,
    ) -> None:
        if memory_bytes is not None and memory_bytes < 1:
            raise OptionError(f"the memory budget must be positive, got {memory_bytes} bytes")
        for what, asked in (("thread", threads), ("lane", lanes), ("image", images)):
            if asked is not None and asked < 1:
                raise OptionError(f"at least one {what} is needed, got {asked}")
        self.scratch = scratch or Path(tempfile.gettempdir())
        if not self.scratch.is_dir():
            raise OptionError(f"--scratch {self.scratch}: there is no such folder")
        if scratch_bytes is not None and scratch_bytes < 0:
            raise OptionError(f"--scratch-size must not be negative, got {scratch_bytes} bytes")
        self.processor = open_processor(
            model,
            device=device,
            engine=engine,
            device_memory_bytes=device_memory_bytes,
            threads=threads,
            keep=keep_engine,
        )
        model, of_images = self._suited(model)
        self.model = model
        if memory_bytes is not None:
            return_large_blocks_at_once()
        process_bytes = settled_resident_bytes()
        budget_bytes = memory_bytes if memory_bytes is not None else default_budget_bytes()

        family = self.processor.family if isinstance(self.processor, HostProcessor) else None
        self.other_engine = "" if family is None or isinstance(family, OnnxRuntimeFamily) else family.name

        def planner(model: DeployedModel) -> Planner:
            return Planner(
                model,
                budget_bytes=budget_bytes,
                process_bytes=process_bytes,
                space=self.processor.space,
                engine_stays=keep_engine,
                threads=compute_threads(threads),
                lanes=lanes,
                images=images,
                engine_memory=family.memory if family is not None else ONNX_RUNTIME_MEMORY,
                other_engine=self.other_engine,
            )

        self.planner_of = planner
        self.planner = planner(model)
        self._without_passes = replace(of_images, levels=(), keeping=None, whole=None)
        self._planner_without_passes = planner(self._without_passes)
        self._ways = Ways(
            model=model,
            planner=self.planner,
            processor=self.processor,
            threads=threads,
            scratch=self.scratch,
            scratch_bytes=scratch_bytes,
        )

    def _suited(self, model: DeployedModel) -> tuple[DeployedModel, DeployedModel]:
        """Return ``model`` for the processor, and that for images whose statistics are known, or not needed."""
        if isinstance(self.processor, HostProcessor):
            model = of_images = self.processor.family.suited(model)
        else:  # graphs on GPUs do not take the position of a tile
            model = model.on(GPU)
            of_images = model.without_placed
        # Statistics are those of an image that is not extended.
        return (model if model.levels else of_images), of_images

    def without_passes(self, statistics: FixedStatistics) -> tuple[DeployedModel, Planner]:
        """Return the form that takes ``statistics`` instead of the image's own, and its planner. Raises OptionError."""
        statistics.check(self.model)
        return self._without_passes, self._planner_without_passes

    def way(self, source: Source, sink: Sink, wish: Wish, statistics: FixedStatistics | None, *, resume: bool) -> Way:
        """Return how the image is run. Raises OptionError and SinkError, the sink aborted."""
        try:
            if statistics is None:
                self.planner.lane_choice(wish)
                return self._ways.choose(source, sink, wish, resume=resume)
            model, planner = self.without_passes(statistics)
        except ExactileError:
            sink.abort()
            raise
        return Way(model=model, planner=planner, processor=self.processor, wish=wish)

    def normalizers(
        self,
        source: Source,
        given: Normalizers | None = None,
        measuring: Measuring | None = None,
        nodata: float | None = None,
    ) -> Normalizers | None:
        """Return those ``given``, or find them; None if the model normalises by fixed numbers."""
        image = self.model.contract.image
        if image.statistics is None or given is not None:
            return given
        return measured_normalizers(image, self.planner, source, measuring=measuring, nodata=nodata)

    def narrowing(self, way: Way, source: Source, sink: Sink) -> Narrowing | None:
        """Return what makes the halo smaller, if requested. Raises OptionError, the sink aborted."""
        if way.wish.tolerance is None:
            return None
        try:
            processor = check_tolerance(way.model, way.processor, (source.height, source.width), way.wish.tolerance)
        except ExactileError:
            sink.abort()
            raise
        return Narrowing(
            model=way.model,
            planner=way.planner,
            planner_of=self.planner_of,
            processor=processor,
            source=source,
            sink=sink,
            wish=way.wish,
        )

    def tile_runs(self, source: Source, nodata: float | None) -> TileRuns:
        """Return single tiles of ``source``, to be computed apart from a run.

        Raises OptionError if there are none with another halo, ChannelError, PlanError, SourceError.
        """
        image = self.model.contract.image
        leave_out_alpha(source, image.channels)
        self.planner.check_source(source)
        processor = check_measurable(self.model, self.processor, (source.height, source.width))
        normalizers = self.normalizers(source, nodata=nodata)
        return TileRuns(
            model=self.model,
            planner=self.planner,
            processor=processor,
            source=source,
            sink=NoSink(),
            constants=constants_of(image, normalizers),
        )
