"""The client's side: plan, make the Zarr, submit blocks, keep account of them, name the Zarr."""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from os import PathLike
from typing import TYPE_CHECKING, Any

from exactile.contract import DeployedModel
from exactile.distributed.job import BlockReport, Job
from exactile.distributed.tasks import Tasks
from exactile.errors import OptionError, PlanError
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
    from distributed import Client

BLOCK_PX = 4096
"""Edge of a block: some seconds of work, and three levels of a pyramid."""


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
        if request.plan == "whole":
            raise OptionError("--plan whole is one pass, which cannot be shared. What to do: run it without a cluster")
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
        work = Tasks(self._client, job, self._stop)
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
        job = Job(
            key=secrets.token_hex(8),
            model=self._model,
            address=self._image,
            source_options=dict(request.source_options),
            image=source.identity(),
            processor=dict(session.processor_identity),
            plan="strip" if isinstance(plan, StripPlan) else "tile",
            shape=_shape_of(plan),
            fitted=request.tile is None,
            border=request.border,
            normalizers=normalizers,
            nodata=request.nodata,
            nodata_label=request.nodata_label,
            memory_bytes=request.memory_bytes,
            threads=request.threads,
            engine=request.engine,
            target=sink.target,
        )
        return _Prepared(job=job, image=(source.height, source.width), shape=_shape_of(job.in_blocks(plan)))

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


def _shape_of(plan: Plan) -> tuple[int, int]:
    """As a wish says it."""
    return (plan.rows, plan.x.tile) if isinstance(plan, StripPlan) else plan.tile_shape
