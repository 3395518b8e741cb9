"""The worker's side: open source and engine once for an image, then work on its pieces, one at a time."""

from __future__ import annotations

import platform
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

import exactile
from exactile.distributed.job import (
    Batch,
    BlockReport,
    BlockWork,
    ImageReport,
    ImagesWork,
    Job,
    LevelWork,
    ModelWork,
    OneImage,
)
from exactile.distributed.request import Request
from exactile.errors import CancelledError, ClusterError, ExactileError, SinkError, SourceError
from exactile.image_statistics.measure import take_blocks
from exactile.image_statistics.tallies import Tally
from exactile.pipeline.cancellation import Cancellation
from exactile.plan.part import Zones
from exactile.planning import Wish
from exactile.session import Session
from exactile.sinks.open import open_sink
from exactile.sinks.protocol import ResumableSink
from exactile.sinks.resume.description import differences
from exactile.sinks.zarr.blocks import BlockSink, SharedZarr, make_chunks
from exactile.sources.alpha import leave_out_alpha
from exactile.sources.nodata import nodata_rule
from exactile.sources.open import open_source

MOST_CANCELLED = 1000
"""Number of ended runs to remember, for their pieces that begin later."""

Begun = Callable[[Callable[[], None]], None]
"""A function that receives what cancels a piece of work."""


class OpenedJob:
    """Source and session of one image in this process."""

    def __init__(self, job: Job) -> None:
        """Open them. Raises ClusterError if the source or the engine differs from the client's, SourceError."""
        self.job = job
        self.source = open_source(job.address, **job.request.source_options)
        try:
            leave_out_alpha(self.source, job.model.contract.image.channels)
            _check_same("the image", job.image, self.source.identity())
            self.session = job.request.session(job.model, keep_engine=True)
            _check_engine(job.processor, self.session, job.request)
        except BaseException:
            self.source.close()
            raise

    def block(self, work: BlockWork, number: int, begun: Begun) -> BlockReport:
        """Run a block and write it."""
        request, box = self.job.request, work.target.box(number)
        run = self.session.image_run(
            self.source,
            BlockSink(work.target, box, workers=request.threads),
            Wish(plan=work.plan, tile=work.shape, border=request.border),
            normalizers=work.normalizers,
            statistics=work.statistics,
            nodata=request.nodata,
            nodata_label=request.nodata_label,
            part=lambda plan: work.part(plan, box),
        )
        begun(lambda: run.cancellation.cancel(CancelledError("the run was cancelled")))
        summary = run.run()
        return BlockReport(
            number=number,
            worker=worker_name(),
            machine=_machine(self.session),
            pixels=box.area,
            computed_pixels=summary.computed_pixels,
            seconds=summary.seconds.total,
            peak_memory_bytes=summary.peak_memory_bytes,
            nan=summary.nan,
        )

    def zones(self, work: LevelWork, zones: Zones, begun: Begun) -> NDArray[np.float64]:
        """Return partial statistics, (Z, P), of some zones."""
        passes = self.session.measured_image(self.source).passes(Wish(plan="tile", tile=work.tile))
        begun(lambda: passes.cancellation.cancel(CancelledError("the run was cancelled")))
        level = passes.model.levels[work.level]
        try:
            return passes.run_zones(level, work.size, work.constants, tile=work.tile, part=zones.of)
        finally:
            passes.close()

    def tally(self, tally: Tally, rows: range, begun: Begun) -> NDArray[Any]:
        """Return the partial sums of some rows of blocks, which ``tally`` merges."""
        cancellation = Cancellation()
        begun(lambda: cancellation.cancel(CancelledError("the run was cancelled")))
        part, rule = tally.apart(), nodata_rule(self.source, self.job.request.nodata)
        try:
            take_blocks(self.source, part, rows, rule=rule, progress=lambda _pixels: cancellation.check())
        finally:
            if rule is not None:
                rule.close()
        return part.parts

    def close(self) -> None:
        self.session.close()
        self.source.close()


class OpenedModel:
    """The session of a model for many images."""

    def __init__(self, given: ModelWork, request: Request) -> None:
        self.session = request.session(given.model, keep_engine=True)

    def image(self, work: ImagesWork, one: OneImage, begun: Begun) -> ImageReport:
        """Run an image and write its result; resume what a killed worker has left of it."""
        request = work.request
        _check_engine(one.processor, self.session, request)
        source = open_source(one.address, **request.source_options)
        try:
            leave_out_alpha(source, self.session.contract.image.channels)
            _check_same("the image", one.image, source.identity())
            sink = open_sink(one.target, **work.sink_options)
            run = self.session.image_run(
                source,
                sink,
                request.wish,
                resume=isinstance(sink, ResumableSink),
                arguments=request.arguments,
                nodata=request.nodata,
                nodata_label=request.nodata_label,
                statistics=request.statistics,
            )
            begun(lambda: run.cancellation.cancel(CancelledError("the run was cancelled")))
            summary = run.run()
        finally:
            source.close()
        return ImageReport(summary=summary, record=run.record, worker=worker_name(), machine=_machine(self.session))

    def close(self) -> None:
        self.session.close()


OpenedT = TypeVar("OpenedT", OpenedJob, OpenedModel)


class Worker:
    """What this process keeps open between pieces of work."""

    def __init__(self) -> None:
        self._busy = threading.Lock()
        self._opened: OpenedJob | OpenedModel | None = None
        self._opened_key = ""
        self._working_for = ""
        self._state = threading.Lock()
        self._cancelled: dict[str, None] = {}
        self._stop: Callable[[], None] | None = None

    def opened(self, key: str, make: Callable[[], OpenedT]) -> OpenedT:
        """Return the object for ``key``, made once; close that of another key."""
        if self._opened is None or self._opened_key != key:
            kept, self._opened = self._opened, None
            if kept is not None:
                kept.close()
            self._opened, self._opened_key = make(), key
        return cast("OpenedT", self._opened)  # each kind has its own keys

    @contextmanager
    def at_work(self, key: str) -> Iterator[None]:
        """Allow one piece of work at a time. Raises CancelledError if its run was cancelled."""
        with self._busy:
            try:
                with self._state:
                    self._working_for = key
                self._check(key)
                yield
            finally:
                with self._state:
                    self._stop, self._working_for = None, ""

    def may_be_stopped(self, key: str, stop: Callable[[], None]) -> None:
        """Call ``stop`` when the run is cancelled, or now if it was."""
        with self._state:
            self._stop = stop
        try:
            self._check(key)
        except CancelledError:
            stop()

    def cancel(self, key: str) -> None:
        """Stop current work for the run, and start no more."""
        with self._state:
            self._cancelled[key] = None
            while len(self._cancelled) > MOST_CANCELLED:
                del self._cancelled[next(iter(self._cancelled))]
            stop = self._stop if self._working_for == key else None
        if stop is not None:
            stop()

    def _check(self, key: str) -> None:
        with self._state:
            if key in self._cancelled:
                raise CancelledError("the run was cancelled")


_WORKER = Worker()


def run_block(job: Job, work: BlockWork, number: int) -> BlockReport:
    """Run the task for block ``number`` of the result. Raises ClusterError."""
    with _at_work(f"block {number}", job) as (opened, begun):
        return opened.block(work, number, begun)


def run_zones(job: Job, work: LevelWork, zones: Zones) -> NDArray[np.float64]:
    """Run the task for partial statistics of some zones of a pass. Raises ClusterError."""
    with _at_work(f"pass {work.level + 1}", job) as (opened, begun):
        return opened.zones(work, zones, begun)


def run_tally(job: Job, tally: Tally, rows: range) -> NDArray[Any]:
    """Run the task for statistics of the samples in some rows of blocks. Raises ClusterError."""
    with _at_work("reading the image", job) as (opened, begun):
        return opened.tally(tally, rows, begun)


def run_chunks(job: Job, target: SharedZarr, level: int, chunks: range) -> int:
    """Run the task for some chunks of a level of the pyramid. Raises ClusterError."""
    with _told(f"level {level}"), _WORKER.at_work(job.key):
        return make_chunks(target, level, chunks)


def run_image(batch: Batch, work: ImagesWork, one: OneImage, given: ModelWork) -> ImageReport:
    """Run the task for one of many images. Raises its error, ClusterError."""
    with _WORKER.at_work(batch.key):
        opened = _WORKER.opened(given.key, lambda: OpenedModel(given, work.request))
        return opened.image(work, one, lambda stop: _WORKER.may_be_stopped(batch.key, stop))


def cancel_job(key: str) -> None:
    """Forget a run, in workers, when it is cancelled or complete."""
    _WORKER.cancel(key)


def given(shared: Any) -> Any:
    """Return ``shared``, as a task: sent once to a worker, and again by the scheduler if it is lost."""
    return shared


def worker_address() -> str:
    """Return the address of the worker that this task runs on."""
    from distributed import get_worker

    return str(get_worker().address)


def worker_name() -> str:
    """Return name and address of the worker that this task runs on."""
    from distributed import get_worker

    worker = get_worker()
    return f"{worker.name} ({worker.address})"


def _machine(session: Session) -> dict[str, Any]:
    """Return what computes here, as plain data."""
    return {
        "exactile": exactile.__version__,
        "python": platform.python_version(),
        "host": platform.node(),
        **session.processor_identity,
    }


@contextmanager
def _at_work(what: str, job: Job) -> Iterator[tuple[OpenedJob, Begun]]:
    with _told(what), _WORKER.at_work(job.key):
        opened = _WORKER.opened(job.key, lambda: OpenedJob(job))
        yield opened, lambda stop: _WORKER.may_be_stopped(job.key, stop)


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Make errors say where they happened, and whether another worker may succeed."""
    try:
        yield
    except (ClusterError, CancelledError):
        raise
    except (SinkError, SourceError, OSError, MemoryError) as error:
        message = f"{what} failed on worker {worker_name()}: {error or 'out of memory'}"
        raise ClusterError(message, True, worker_address()) from error
    except ExactileError as error:
        raise ClusterError(f"{what} failed on worker {worker_name()}: {error}") from error


def _check_engine(asked: Mapping[str, Any], session: Session, request: Request) -> None:
    if not request.mixed:
        mixed = ", on processors of one kind; or pass --mixed, where last digits of scores may differ by block"
        _check_same("the engine", asked, session.processor_identity, way_out=mixed)


def _check_same(what: str, asked: Mapping[str, Any], found: Mapping[str, Any], *, way_out: str = "") -> None:
    if differing := differences(asked, found):
        raise ClusterError(
            f"{what} on worker {worker_name()} is not the client's: {'; '.join(differing)}. What to do: give all "
            f"workers the same files and the same versions of packages{way_out}"
        )
