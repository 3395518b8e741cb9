"""The request of ``exactile run``, the same for one image and for many."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from exactile.cli.background import parse_background
from exactile.contract import DeployedModel
from exactile.contract.graph_hash import graph_hash
from exactile.contract.tolerance import Tolerance
from exactile.errors import BudgetError, OptionError
from exactile.machine.memory import default_budget_bytes
from exactile.passes.fixed import FixedStatistics, read_statistics
from exactile.plan.border import Border
from exactile.planning import PlanName, Wish
from exactile.request.meaning import tell_doubt, tell_unproven
from exactile.request.model_choice import Deploy, ModelChoice
from exactile.runs.batch import OVERLAP_SHARE
from exactile.runs.image_run import ImageRun, Watcher
from exactile.session import Session
from exactile.sinks.open import open_sink
from exactile.sinks.protocol import ResumableSink, Sink
from exactile.sinks.zarr.sink import labels_folder
from exactile.sources.alpha import leave_out_alpha
from exactile.sources.open import open_source
from exactile.sources.protocol import Source
from exactile.trace import Trace, check_trace_target
from exactile.views.preview import pictures_bytes, write_pictures


@dataclass(slots=True, kw_only=True)
class RunRequest:
    """Options as given, checked when they are used. ``sources`` and ``sinks`` are those of ``open_source`` and
    ``open_sink``.
    """

    model: ModelChoice
    sources: Mapping[str, Any]
    sinks: Mapping[str, Any]
    plan: PlanName
    tile: tuple[int, int] | None
    trial: bool
    border: Border
    skip_background: str | None
    background_label: int | None
    nodata: float | None
    nodata_label: int | None
    memory_bytes: int | None
    threads: int | None
    lanes: int | None
    device: str
    engine: str
    device_memory_bytes: int | None
    scratch: Path | None
    scratch_bytes: int | None
    trace: Path | None
    resume: bool
    pictures: Mapping[str, bool]
    statistics: Path | None = None
    tolerance: Tolerance | None = None
    keep_engine: bool = False
    side_by_side: int = 1
    _deploy: Deploy | None = None
    _told: bool = False
    _fixed: FixedStatistics | None = None
    _trace: Trace = field(default_factory=Trace)
    _sessions: dict[tuple[str, tuple[int, int] | None], Session] = field(default_factory=dict)

    def load(self) -> None:
        """Read the model, before any image is opened."""
        if self.trace is not None:
            check_trace_target(self.trace)
        if self.statistics is not None:
            self._fixed = read_statistics(self.statistics)
        self._deploy = self.model.load()

    def deployed(self, source: Source) -> DeployedModel:
        """Return the model for ``source``, in tiles or strips."""
        if self._deploy is None:
            self.load()
        assert self._deploy is not None
        model = self._deploy(str(source.dtype), (source.height, source.width), lambda _model: False)
        tell_doubt(model.contract.result.doubt)
        tell_unproven(model.contract.model_name, model.contract.verification)
        return model

    def open_source(self, image: str | Path) -> Source:
        return open_source(image, **self.sources)

    def open_sink(self, target: Path) -> Sink:
        return open_sink(target, **self.sinks)

    def image_run(self, source: Source, sink: Sink, watcher: Watcher, image: str | Path, target: Path) -> ImageRun:
        """Return the run of one image, pictures included; ``image`` is its name."""
        session = self._session(source, sink)
        leave_out_alpha(source, session.contract.image.channels)
        label = self.background_label
        if label is None:
            label = self.nodata_label if self.skip_background == "nodata" and self.nodata_label is not None else 0
        background = parse_background(self.skip_background, label, source, self.nodata)
        label_bytes = np.dtype(session.contract.result.stored_dtype).itemsize
        wish = Wish(
            plan=self.plan,
            tile=self.tile,
            trial=self.trial,
            border=self.border,
            background=background,
            apart_bytes=pictures_bytes(source, label_bytes, self.pictures),
            tolerance=self.tolerance,
        )
        run = session.image_run(
            source,
            sink,
            wish,
            watcher=watcher,
            resume=self.resume,
            arguments={
                **{name: self.sources[name] for name in ("on_corrupt", "corrupt_value")},
                "nodata": None if self.nodata is None else str(self.nodata),
            },
            nodata=self.nodata,
            nodata_label=self.nodata_label,
            release_early=self.keep_engine,
            trace=self._trace.of(str(image)) if self.trace is not None else None,
            afterwards=self._pictures_of(session, image, target),
            statistics=self._fixed,
        )
        self.check_pictures(run)
        return run

    def check_pictures(self, run: ImageRun) -> None:
        """Raise OptionError if pictures are requested of results that are not labels."""
        if any(self.pictures.values()) and run.model.contract.result.channels:
            raise OptionError("--preview and --overlay show labels; they need --output labels")

    def _pictures_of(self, session: Session, image: str | Path, target: Path) -> Callable[[int], None] | None:
        """Return the writer of small pictures beside the result; None if none are requested."""
        if not any(self.pictures.values()):
            return None
        result, first = labels_folder(target, self.sinks["label"]), self.sources["level"]

        def write(spare_bytes: int) -> None:
            write_pictures(
                target,
                lambda level: open_source(result, level=level),
                lambda level: open_source(image, **{**self.sources, "mpp": None, "level": first + level}),
                session.contract.result.labels,
                wanted=self.pictures,
                spare_bytes=spare_bytes,
            )

        return write

    def _session(self, source: Source, sink: Sink) -> Session:
        """Return the session for one sample type, and for one image size if the model is for one; close the engines of
        others.

        A model may be for all sizes and still be better for some if they are known. A model for one pass that fitted
        the memory may not fit for the next image of the same size, which is stored in another way.
        """
        if self._deploy is None:
            self.load()
        assert self._deploy is not None
        dtype, size = str(source.dtype), (source.height, source.width)
        for known in ((dtype, size), (dtype, None)):
            kept = self._sessions.get(known)
            if kept is not None and not kept.lacks(size) and (known[1] is None or self._suits(kept, source, sink)):
                return kept
        for other in self._sessions.values():
            other.close()
        self._sessions = {key: kept for key, kept in self._sessions.items() if key[1] is None}
        model = self._deploy(dtype, size, lambda model: self._fits(model, source, sink))
        if not self._told:
            tell_doubt(model.contract.result.doubt)
            tell_unproven(model.contract.model_name, model.contract.verification)
            self._told = True
        of_one_size = model.contract.obstacles or model.image_size is not None
        self._sessions[dtype, size if of_one_size else None] = session = self._opened(model)
        return session

    def _opened(self, model: DeployedModel) -> Session:
        return Session(
            model,
            memory_bytes=self._budget(),
            threads=self.threads,
            lanes=self.lanes,
            images=self.side_by_side if self.lanes is None else 1,
            keep_engine=self.keep_engine,
            device=self.device,
            engine=self.engine,
            device_memory_bytes=self.device_memory_bytes,
            scratch=self.scratch,
            scratch_bytes=self.scratch_bytes,
        )

    def _fits(self, model: DeployedModel, source: Source, sink: Sink) -> bool:
        """Return whether there is a plan for ``model``, and the run to be resumed had no other one."""
        if self.resume and isinstance(sink, ResumableSink):
            begun = sink.unfinished()
            if begun is not None and begun["model"]["graph"] != graph_hash(model):
                return False
        with closing(self._opened(model)) as session:
            return self._has_plan(session, source, sink)

    def _suits(self, session: Session, source: Source, sink: Sink) -> bool:
        """Return whether the same choice would be made for this image."""
        if not session.contract.in_passes or self.plan == "whole":
            return True
        return self._has_plan(session, source, sink)

    def _has_plan(self, session: Session, source: Source, sink: Sink) -> bool:
        try:
            session.plan(source, sink, border=self.border)
        except BudgetError:
            return False
        return True

    def _budget(self) -> int | None:
        """Return the budget of one image in bytes: of many, the previous one may still hold a share."""
        if not self.keep_engine:
            return self.memory_bytes
        whole = self.memory_bytes if self.memory_bytes is not None else default_budget_bytes()
        return whole - whole // OVERLAP_SHARE

    def write_trace(self) -> None:
        """Write the trace, if requested. Raises SinkError."""
        if self.trace is not None:
            self._trace.write(self.trace)

    def close(self) -> None:
        """Close the engine that was kept, and the GPUs."""
        for session in self._sessions.values():
            session.close()
