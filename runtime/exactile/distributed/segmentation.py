"""The client's side: plan, create the Zarr, submit blocks, keep a journal of them, rename the Zarr."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from os import PathLike
from typing import TYPE_CHECKING, Any

from exactile.contract import DeployedModel
from exactile.distributed.job import BlockReport, BlockWork
from exactile.distributed.preparation import Preparation
from exactile.distributed.request import BLOCK_PX, Request
from exactile.distributed.summary import ClusterSummary
from exactile.distributed.tasks import Tasks
from exactile.distributed.worker import run_block, run_chunks
from exactile.errors import PlanError
from exactile.passes.fixed import check_takes_statistics
from exactile.pipeline.stored_values import NO_NAN, NanReport
from exactile.sinks.zarr.blocks import SharedZarr, SharedZarrSink
from exactile.sources.alpha import leave_out_alpha
from exactile.sources.open import open_source
from exactile.threads.waited_thread import WaitedThread

if TYPE_CHECKING:
    from distributed import Client

Progress = Callable[[int, int], None]

CHUNKS_PER_TASK = 64
"""Chunks of the upper levels of a pyramid for one task."""


def untold(_done: int, _total: int) -> None:
    """Ignore progress."""


def address_of(image: str | PathLike[str]) -> str:
    """Return the path as workers find it."""
    return str(image) if "://" in str(image) else os.path.abspath(image)  # noqa: PTH100 -- links are kept


def segment(
    client: Client,
    model: DeployedModel,
    image: str | PathLike[str],
    target: str | PathLike[str],
    *,
    block: int = BLOCK_PX,
    compression: str | None = None,
    pyramid: bool | None = None,
    label: str | None = None,
    overwrite: bool = False,
    priority: int = 0,
    progress: Progress = untold,
    measuring: Progress = untold,
    **request: Any,
) -> Segmentation:
    """Segment ``image`` into the Zarr ``target`` on the workers of ``client``; equal to one pass over the whole image.

    ``image`` and ``target`` are paths that all workers and this process see under the same name. Returns at once:
    ``Segmentation.result`` waits. ``block`` is the edge of a block in result pixels, rounded up to the tile of the Zarr
    times a power of two. Further options, as for ``Session.segment``: ``plan``, ``tile``, ``border``, ``nodata``,
    ``nodata_label``, ``statistics``, ``resume``; ``source_options``, those of ``open_source``; for each worker
    ``memory_bytes``, ``threads``, ``engine``, ``device_memory_bytes`` and ``device``: ``cpu`` by default, or
    ``cuda:0``, the first GPU that it sees; ``progress``, called with the pixels done and their total, ``measuring``
    with the same for statistics found before the result. Of several images, those with a higher ``priority`` run first.
    With ``mixed``, workers may have other versions and processors than this process, and the last digits of scores
    differ.

    Workers also find the statistics of the whole image: of its samples, if the model normalises by them, and of feature
    maps, in passes that each begin at the image. Raises OptionError; other errors are raised by ``result``.
    """
    sink = SharedZarrSink(
        target, edge=block, label=label, compression=compression or "zstd", pyramid=pyramid, overwrite=overwrite,
        resumable=True,
    )  # fmt: skip
    return Segmentation(
        client, model, address_of(image), sink, Request(**request), priority=priority, progress=progress,
        measuring=measuring,
    )  # fmt: skip


class Segmentation:
    """A run on a cluster, in progress from its creation. Several may share a client."""

    def __init__(
        self,
        client: Client,
        model: DeployedModel,
        image: str,
        sink: SharedZarrSink,
        request: Request,
        *,
        priority: int,
        progress: Progress,
        measuring: Progress,
    ) -> None:
        contract = model.contract
        if contract.obstacles:
            raise PlanError(
                f"{contract.model_name} cannot be tiled: {contract.obstacles[0]}. What to do: run it on one machine, "
                "without a cluster"
            )
        if request.statistics is not None:
            request.statistics.check(model)
        elif model.levels:
            check_takes_statistics(model)
        self._client, self._model, self._image, self._sink, self._request = client, model, image, sink, request
        self._priority, self._progress, self._measuring = priority, progress, measuring
        self._stop = threading.Event()
        self._summary: ClusterSummary | None = None
        self._error: BaseException | None = None
        self._thread = WaitedThread(target=self._guarded, name="exactile-cluster", daemon=True)
        self._thread.start()

    @property
    def done(self) -> bool:
        """Whether it has ended, successfully or not."""
        return not self._thread.is_alive()

    @property
    def keeps(self) -> bool:
        """Whether there is something to resume."""
        return self._sink.keeps

    def result(self, timeout: float | None = None) -> ClusterSummary:
        """Wait for the end. Raises the error of the run, and TimeoutError if it still runs after
        ``timeout`` seconds.
        """
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise TimeoutError(f"{self._image} is still being segmented")
        if self._error is not None:
            raise self._error
        assert self._summary is not None
        return self._summary

    def cancel(self) -> None:
        """Cancel the run, and wait for that; finished blocks are kept for ``resume``. ``result`` raises
        CancelledError.
        """
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
        session = request.planning_session(self._model)
        try:
            leave_out_alpha(source, self._model.contract.image.channels)
            preparation = Preparation(
                model=self._model,
                address=self._image,
                request=request,
                sink=sink,
                session=session,
                source=source,
                measuring=self._measuring,
            )
            tasks = Tasks(
                self._client, preparation.job(), self._stop, priority=self._priority, resource=request.resource
            )
            try:
                prepared = preparation.prepared(tasks)
            except BaseException:
                tasks.cancel()
                raise
        finally:
            session.close()
            source.close()
        try:
            account = self._blocks(tasks, prepared.work)
        except BaseException:
            tasks.cancel()
            raise
        tasks.end()
        sink.finish()
        work, target = prepared.work, prepared.work.target
        return ClusterSummary(
            plan=work.plan,
            shape=prepared.shape,
            image=prepared.image,
            blocks=target.count,
            block=target.box(0).shape,
            workers=dict(account.workers),
            again=tasks.again,
            seconds=time.perf_counter() - begin,
            wanted_pixels=prepared.image[0] * prepared.image[1],
            computed_pixels=account.computed_px,
            kept_pixels=account.kept_px,
            peak_memory_bytes=account.peak_bytes,
            nan=account.nan,
            machines=account.machines,
            record=prepared.record,
            spec=target.spec,
        )

    def _blocks(self, tasks: Tasks, work: BlockWork) -> _Account:
        """Run the blocks that are left, then write the upper levels of the pyramid."""
        sink, target = self._sink, work.target
        kept = frozenset(number for number in range(target.count) if sink.is_done(target.box(number)))
        account = _Account(
            kept_px=sum(target.box(number).area for number in kept),
            total_px=target.spec.height * target.spec.width,
            tell=self._progress,
        )
        left = ((number,) for number in range(target.count) if number not in kept)
        for _, report in tasks.run(run_block, work, left):
            sink.adopt(target.box(report.number))
            account.add(report)
        for level in range(target.box_levels + 1, target.levels):
            for _ in tasks.run(run_chunks, target, _chunks(target, level)):
                pass
        return account


@dataclass(slots=True, kw_only=True)
class _Account:
    """Sum up the reports."""

    kept_px: int
    total_px: int
    tell: Callable[[int, int], None]
    done_px: int = 0
    computed_px: int = 0
    peak_bytes: int = 0
    workers: Counter[str] = field(default_factory=Counter)
    nan: NanReport = NO_NAN

    machines: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.done_px = self.kept_px
        self.tell(self.done_px, self.total_px)

    def add(self, report: BlockReport) -> None:
        self.workers[report.worker] += 1
        self.machines[report.worker] = report.machine
        self.computed_px += report.computed_pixels
        self.peak_bytes = max(self.peak_bytes, report.peak_memory_bytes)
        firsts = [first for first in (self.nan.first, report.nan.first) if first is not None]
        self.nan = NanReport(pixels=self.nan.pixels + report.nan.pixels, first=min(firsts, default=None))
        self.done_px += report.pixels
        self.tell(self.done_px, self.total_px)


def _chunks(target: SharedZarr, level: int) -> Iterator[tuple[int, range]]:
    """Return the chunks of ``level``, by task."""
    count = target.grids[level].count
    return ((level, range(at, min(at + CHUNKS_PER_TASK, count))) for at in range(0, count, CHUNKS_PER_TASK))
