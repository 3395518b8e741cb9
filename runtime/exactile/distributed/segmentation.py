"""The client's side: plan, make the Zarr, submit blocks, keep account of them, name the Zarr."""

from __future__ import annotations

import os
import secrets
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING, Any

from exactile.contract import DeployedModel
from exactile.distributed.job import BlockReport, Job
from exactile.distributed.worker import cancel_job, given, run_block, run_level
from exactile.errors import CancelledError, ClusterError, ExactileError, PlanError
from exactile.input_protection import check_source_kept
from exactile.plan.border import Border
from exactile.plan.part import fitted, next_larger
from exactile.plan.prediction import Plan
from exactile.plan.strips import StripPlan
from exactile.plan.tiles import TilePlan
from exactile.planning import PlanName, Wish
from exactile.run_record import Earlier, asked_record, complete_record, take_over
from exactile.session import Session
from exactile.sinks.zarr_blocks import SharedZarrSink
from exactile.sources.alpha import leave_out_alpha
from exactile.sources.open import open_source
from exactile.sources.protocol import Source
from exactile.stored_values import NO_NAN, NanReport

if TYPE_CHECKING:
    from distributed import Client, Future

BLOCK_PX = 4096
"""Edge of a block: some seconds of work, and three levels of a pyramid."""

CHUNKS_PER_TASK = 64
"""Of the upper levels of a pyramid."""

MOST_TRIES = 4
"""Of a block whose worker could not read or write; each may be on another worker."""

AHEAD = 2
"""Blocks that are submitted for each thread of the cluster: one that runs, and one that waits there."""

WORKERS_S = 60.0
"""How long the first worker is waited for."""

KILLED = "KilledWorker"
"""What Dask raises for a task whose workers were killed."""

POLL_S = 0.2

LOOK_S = 5.0
"""How often the threads of a cluster are counted."""

CANCEL_S = 60.0
"""How long a block that was cancelled is waited for: it ends with its tile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSummary:
    """What a run on a cluster did. ``workers``: blocks by worker; ``again``: blocks that were run more than once.

    ``shape`` is the tile, or strip rows and band width; ``kept_pixels`` were there from an earlier run.
    """

    plan: str
    shape: tuple[int, int]
    image: tuple[int, int]
    result: tuple[int, ...]
    blocks: int
    block: tuple[int, int]
    workers: Mapping[str, int]
    again: int
    seconds: float
    wanted_pixels: int
    computed_pixels: int
    kept_pixels: int
    peak_memory_bytes: int
    nan: NanReport = NO_NAN

    @property
    def megapixels_per_second(self) -> float:
        return self.wanted_pixels / 1e6 / max(self.seconds, 1e-9)


@dataclass(slots=True, kw_only=True)
class Request:
    """What is asked for; ``segment`` says what each means."""

    source_options: Mapping[str, Any] = field(default_factory=dict)
    plan: PlanName = "auto"
    tile: tuple[int, int] | None = None
    border: Border = "model"
    memory_bytes: int | None = None
    threads: int | None = None
    engine: str = "auto"
    nodata: float | None = None
    nodata_label: int | None = None
    resume: bool = False
    progress: Callable[[int, int], None] = lambda _done, _total: None
    measuring: Callable[[int, int], None] | None = None


def segment(
    client: Client,
    model: DeployedModel,
    image: str | PathLike[str],
    target: str | PathLike[str],
    *,
    block: int = BLOCK_PX,
    compression: str = "zstd",
    pyramid: bool | None = None,
    label: str | None = None,
    overwrite: bool = False,
    **request: Any,
) -> Segmentation:
    """Segment ``image`` into the Zarr ``target`` on the workers of ``client``; equal to one pass over the whole image.

    ``image`` and ``target`` are paths that all workers and this process see under the same name. Returns at once:
    ``Segmentation.result`` waits. ``block`` is the edge of a block in result pixels, rounded up to the tile of the Zarr
    by a power of two. Further options, as of ``Session.segment``: ``plan``, ``tile``, ``border``, ``nodata``,
    ``nodata_label``, ``resume``; ``source_options``, those of ``open_source``; of each worker ``memory_bytes``,
    ``threads``, ``engine``; ``progress``, called with pixels done and in all, ``measuring`` with pixels read for
    statistics and in all.

    Models that take statistics of their feature maps over the whole image are refused. Raises OptionError; what else
    fails is raised by ``result``.
    """
    sink = SharedZarrSink(
        target, edge=block, label=label, compression=compression, pyramid=pyramid, overwrite=overwrite, resumable=True
    )
    address = str(image) if "://" in str(image) else os.path.abspath(image)  # noqa: PTH100 -- links are kept
    return Segmentation(client, model, address, sink, Request(**request))


class Segmentation:
    """A run on a cluster, under way from the moment that it is made. Several may share a client."""

    def __init__(
        self, client: Client, model: DeployedModel, image: str, sink: SharedZarrSink, request: Request
    ) -> None:
        contract = model.contract
        if model.levels or contract.obstacles:
            why = "takes statistics of the whole image" if model.levels else f"cannot be tiled: {contract.obstacles[0]}"
            raise PlanError(f"{contract.model_name} {why}. What to do: run it on one machine, without a cluster")
        self._client, self._model, self._image, self._sink, self._request = client, model, image, sink, request
        self._stop = threading.Event()
        self._summary: ClusterSummary | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._guarded, name="exactile-cluster", daemon=True)
        self._thread.start()

    @property
    def done(self) -> bool:
        """Whether it has ended, well or not."""
        return not self._thread.is_alive()

    @property
    def keeps(self) -> bool:
        """Whether there is something to resume."""
        return self._sink.keeps

    def result(self, timeout: float | None = None) -> ClusterSummary:
        """Wait for the end. Raises what went wrong, and TimeoutError where it goes on after ``timeout`` seconds."""
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise TimeoutError(f"{self._image} is still being segmented")
        if self._error is not None:
            raise self._error
        assert self._summary is not None
        return self._summary

    def cancel(self) -> None:
        """End it, and wait for that; what is done is kept for ``resume``. ``result`` raises CancelledError."""
        self._stop.set()
        self._thread.join()

    def _guarded(self) -> None:
        try:
            self._summary = self._run()
        except BaseException as error:  # noqa: BLE001 -- raised in the caller's thread
            self._error = error
        finally:
            self._sink.abort()

    def _run(self) -> ClusterSummary:
        begin, request, sink = time.perf_counter(), self._request, self._sink
        source = open_source(self._image, **request.source_options)
        session = Session(
            self._model,
            memory_bytes=request.memory_bytes,
            threads=request.threads,
            device="cpu",
            engine=request.engine,
        )
        try:
            prepared = self._prepared(session, source)
        finally:
            session.close()
            source.close()
        job, target = prepared.job, prepared.job.target
        kept = frozenset(number for number in range(target.count) if sink.is_done(target.box(number)))
        kept_pixels = sum(target.box(number).area for number in kept)
        account = _Account(done_px=kept_pixels, total_px=target.spec.height * target.spec.width, tell=request.progress)
        work = _Work(self._client, job, self._stop)
        try:
            work.wait_for_workers()
            left = (number for number in range(target.count) if number not in kept)
            for report in work.blocks(left):
                sink.adopt(target.box(report.number))
                account.add(report)
            for level in range(target.box_levels + 1, target.levels):
                work.level(level)
        except BaseException:
            work.cancel()
            raise
        sink.finish()
        height, width = target.box(0).shape
        return ClusterSummary(
            plan=job.plan,
            shape=prepared.shape,
            image=prepared.image,
            result=target.spec.shape,
            blocks=target.count,
            block=(height, width),
            workers=dict(account.workers),
            again=work.again,
            seconds=time.perf_counter() - begin,
            wanted_pixels=prepared.image[0] * prepared.image[1],
            computed_pixels=account.computed_px,
            kept_pixels=kept_pixels,
            peak_memory_bytes=account.peak_bytes,
            nan=account.nan,
        )

    def _prepared(self, session: Session, source: Source) -> _Prepared:
        """Plan, find statistics of the samples, and begin the Zarr."""
        request, sink = self._request, self._sink
        check_source_kept(source, sink)
        leave_out_alpha(source, self._model.contract.image.channels)
        wish = Wish(plan=request.plan, tile=request.tile, border=request.border)
        arguments = {
            "nodata": None if request.nodata is None else str(request.nodata),
            **({} if request.nodata_label is None else {"nodata_label": request.nodata_label}),
        }
        asked = asked_record(self._model, source, wish, arguments, session.processor_identity)
        earlier = self._earlier(asked) if request.resume else None
        if earlier is not None:
            wish = replace(wish, plan="strip" if earlier.plan == "strip" else "tile", tile=earlier.shape)
        if wish.plan == "strip":
            sink.span_columns()
        plan = session.plan(source, sink, plan=wish.plan, tile=wish.tile, border=wish.border).plan
        if isinstance(plan, TilePlan) and wish.tile is None:
            plan = self._without_halo_twice(session, source, plan)
        if isinstance(plan, StripPlan):
            sink.span_columns()
        sink.reserve(resume=request.resume)  # before what takes long
        normalizers = None
        if earlier is not None:
            normalizers = earlier.normalizers
        elif self._model.contract.image.statistics is not None:
            normalizers = session.measure(source, request.measuring, nodata=request.nodata)
        sink.describe(complete_record(asked, plan, normalizers), resume=request.resume)
        sink.begin(session.result_spec(plan, source))
        return _Prepared(
            job=Job(
                key=secrets.token_hex(8),
                model=self._model,
                address=self._image,
                source_options=dict(request.source_options),
                image=source.identity(),
                processor=dict(session.processor_identity),
                plan="strip" if isinstance(plan, StripPlan) else "tile",
                shape=_shape_of(plan),
                border=request.border,
                normalizers=normalizers,
                nodata=request.nodata,
                nodata_label=request.nodata_label,
                memory_bytes=request.memory_bytes,
                threads=request.threads,
                engine=request.engine,
                target=sink.target,
            ),
            image=(source.height, source.width),
            shape=_shape_of(fitted(plan, sink.target.edge) if isinstance(plan, TilePlan) else plan),
        )

    def _without_halo_twice(self, session: Session, source: Source, plan: TilePlan) -> TilePlan:
        """``plan``, or the next larger tile that fits the blocks, where this computes less and the memory allows it."""
        sink, border = self._sink, self._request.border
        edge = sink.edge(session.result_spec(plan, source))
        with suppress(PlanError):
            larger = session.plan(source, sink, plan="tile", tile=next_larger(plan, edge), border=border).plan
            assert isinstance(larger, TilePlan)
            return min(plan, larger, key=lambda one: fitted(one, edge).computed_pixels)
        return plan

    def _earlier(self, asked: Mapping[str, Any]) -> Earlier | None:
        record = self._sink.unfinished()
        return take_over(record, asked) if record is not None else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prepared:
    job: Job
    image: tuple[int, int]
    shape: tuple[int, int]


@dataclass(slots=True, kw_only=True)
class _Account:
    """What reports add up to."""

    done_px: int
    total_px: int
    tell: Callable[[int, int], None]
    computed_px: int = 0
    peak_bytes: int = 0
    workers: Counter[str] = field(default_factory=Counter)
    nan: NanReport = NO_NAN

    def __post_init__(self) -> None:
        self.tell(self.done_px, self.total_px)

    def add(self, report: BlockReport) -> None:
        self.workers[report.worker] += 1
        self.computed_px += report.computed_pixels
        self.peak_bytes = max(self.peak_bytes, report.peak_memory_bytes)
        firsts = [first for first in (self.nan.first, report.nan.first) if first is not None]
        self.nan = NanReport(pixels=self.nan.pixels + report.nan.pixels, first=min(firsts, default=None))
        self.done_px += report.pixels
        self.tell(self.done_px, self.total_px)


class _Work:
    """Tasks of one image. A few are submitted at a time, however many blocks there are."""

    def __init__(self, client: Client, job: Job, stop: threading.Event) -> None:
        self._client, self._job, self._stop = client, job, stop
        with warnings.catch_warnings():  # large weights are meant to be sent, once
            warnings.filterwarnings("ignore", "Sending large graph", UserWarning)
            self._given = client.submit(given, job, key=f"exactile-image-{job.key}", pure=False)
        self._counted_s, self._count = -LOOK_S, 0
        self._running: dict[Future, tuple[Callable[[int], Future], int]] = {}
        self.again = 0

    def wait_for_workers(self) -> None:
        """Raises ClusterError where there are none, CancelledError."""
        end = time.monotonic() + WORKERS_S
        while not self._threads():
            self._check()
            if time.monotonic() > end:
                raise ClusterError(
                    f"the cluster at {self._client.scheduler.address} has no workers. What to do: start some, for "
                    f"instance: dask worker {self._client.scheduler.address} --nthreads 1"
                )
            time.sleep(POLL_S)

    def blocks(self, numbers: Iterator[int]) -> Iterator[BlockReport]:
        """Run blocks, most in order; their reports as they come. Raises ClusterError, CancelledError."""
        return self._all(partial(self._block, number) for number in numbers)

    def level(self, level: int) -> None:
        """Make a level of the pyramid of the one before."""
        chunks = self._job.target.grids[level].count
        firsts = range(0, chunks, CHUNKS_PER_TASK)
        tasks = (partial(self._chunks, level, first, min(first + CHUNKS_PER_TASK, chunks)) for first in firsts)
        for _ in self._all(tasks):
            pass

    def cancel(self) -> None:
        """Drop what waits, and wait until nothing of the image is written any more."""
        with suppress(Exception):  # a scheduler that is gone has no workers either
            self._client.run(cancel_job, self._job.key, on_error="ignore")
        for future in self._running:
            with suppress(Exception):
                future.exception(timeout=CANCEL_S)
        self._running.clear()

    def _all(self, work: Iterator[Callable[[int], Future]]) -> Iterator[Any]:
        from distributed import wait

        exhausted = False
        while True:
            most = max(2, AHEAD * self._threads())
            while not exhausted and len(self._running) < most:
                one = next(work, None)
                if one is None:
                    exhausted = True
                    break
                self._running[one(0)] = one, 0
            if not self._running:
                return
            try:
                wait(list(self._running), timeout=POLL_S, return_when="FIRST_COMPLETED")
            except TimeoutError:
                self._check()
                continue
            self._check()
            for future in list(self._running):
                status = future.status
                if status in {"pending", "lost"}:  # also what a task gave that is lost with its worker: it is run again
                    continue
                one, tries = self._running[future]
                error = _error_of(future, status)
                if error is None:
                    report = future.result()
                    del self._running[future]
                    yield report
                elif tries + 1 < MOST_TRIES and _may_succeed(error):
                    self.again += 1
                    del self._running[future]
                    self._running[one(tries + 1)] = one, tries + 1
                else:
                    raise _as_cluster_error(error) from error

    def _block(self, number: int, tries: int) -> Future:
        key = f"exactile-block-{self._job.key}-{number}-{tries}"
        return self._client.submit(run_block, self._given, number, key=key, pure=False)

    def _chunks(self, level: int, first: int, stop: int, tries: int) -> Future:
        key = f"exactile-level-{self._job.key}-{level}-{first}-{tries}"
        return self._client.submit(run_level, self._given, level, first, stop, key=key, pure=False)

    def _threads(self) -> int:
        """Those of the cluster, looked at now and then: it may grow and shrink."""
        if not self._count or time.monotonic() - self._counted_s > LOOK_S:
            self._count, self._counted_s = sum(self._client.nthreads().values()), time.monotonic()
        return self._count

    def _check(self) -> None:
        if self._stop.is_set():
            raise CancelledError("the run was cancelled")
        if self._client.status not in {"running", "connecting"}:
            raise ClusterError("the connection to the cluster was closed")


def _shape_of(plan: Plan) -> tuple[int, int]:
    """As a wish says it."""
    return (plan.rows, plan.x.tile) if isinstance(plan, StripPlan) else plan.tile_shape


def _error_of(future: Future, status: str) -> BaseException | None:
    """What went wrong with a task that had ``status``; None where nothing did."""
    if status == "finished":
        return None
    if status != "error":
        return ClusterError("the scheduler was restarted, or cancelled a task. What to do: run it again with --resume")
    error: BaseException = future.exception()
    return error


def _may_succeed(error: BaseException) -> bool:
    """Whether a task that ended so is to be run again. Dask itself does so where a worker was killed, a few times."""
    return error.again if isinstance(error, ClusterError) else type(error).__name__ != KILLED


def _as_cluster_error(error: BaseException) -> BaseException:
    """An error of ours, as it is; another, as one that says that a worker failed."""
    if isinstance(error, ExactileError):
        return error
    if type(error).__name__ == KILLED:
        return ClusterError(
            f"a block was begun again and again, and each worker ended with it ({error}). What to do: look at the "
            "workers' logs; where the system ends them for their memory, give --memory, that of each worker, or fewer "
            "workers on a machine"
        )
    return ClusterError(f"a worker failed: {type(error).__name__}: {error}")
