"""What a worker does: open source and engine once for an image, then run blocks of it, one at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from exactile.distributed.job import BlockReport, Job
from exactile.errors import CancelledError, ClusterError, ExactileError, SinkError, SourceError
from exactile.planning import Wish
from exactile.session import Session
from exactile.sinks.restoration import differences
from exactile.sinks.zarr_blocks import BlockSink, make_chunks
from exactile.sources.alpha import leave_out_alpha
from exactile.sources.open import open_source

MOST_CANCELLED = 1000
"""Images whose end is remembered, for blocks of them that begin later."""


class OpenedJob:
    """Source and session of one image in this process."""

    def __init__(self, job: Job) -> None:
        """Raises ClusterError where the source or the engine is another one than the client's, SourceError."""
        self.job = job
        self.source = open_source(job.address, **job.source_options)
        try:
            leave_out_alpha(self.source, job.model.contract.image.channels)
            _check_same("the image", job.image, self.source.identity())
            self.session = Session(
                job.model,
                memory_bytes=job.memory_bytes,
                threads=job.threads,
                keep_engine=True,
                device="cpu",
                engine=job.engine,
            )
            _check_same("the engine", job.processor, self.session.processor_identity)
        except BaseException:
            self.source.close()
            raise

    def run(self, number: int, name: str, begun: Callable[[Callable[[], None]], None]) -> BlockReport:
        """Run a block; ``begun`` is given what cancels it."""
        job, box = self.job, self.job.target.box(number)
        run = self.session.image_run(
            self.source,
            BlockSink(job.target, box, workers=job.threads),
            Wish(plan=job.plan, tile=job.shape, border=job.border),
            normalizers=job.normalizers,
            nodata=job.nodata,
            nodata_label=job.nodata_label,
            part=lambda plan: job.part(plan, box),
        )
        begun(lambda: run.cancellation.cancel(CancelledError("the run was cancelled")))
        summary = run.run()
        return BlockReport(
            number=number,
            worker=name,
            pixels=box.area,
            computed_pixels=summary.computed_pixels,
            seconds=summary.seconds.total,
            peak_memory_bytes=summary.peak_memory_bytes,
            nan=summary.nan,
        )

    def close(self) -> None:
        self.session.close()
        self.source.close()


class Worker:
    """What this process keeps between blocks."""

    def __init__(self) -> None:
        self._busy = threading.Lock()
        self._opened: OpenedJob | None = None
        self._state = threading.Lock()
        self._cancelled: dict[str, None] = {}
        self._stop: Callable[[], None] | None = None

    def opened(self, job: Job) -> OpenedJob:
        """That of the image; another image's is closed."""
        if self._opened is None or self._opened.job.key != job.key:
            kept, self._opened = self._opened, None
            if kept is not None:
                kept.close()
            self._opened = OpenedJob(job)
        return self._opened

    @contextmanager
    def at_work(self, job: Job) -> Iterator[None]:
        """One piece of work at a time. Raises CancelledError where the image was cancelled."""
        with self._busy:
            try:
                self._check(job)
                yield
            finally:
                with self._state:
                    self._stop = None

    def may_be_stopped(self, job: Job, stop: Callable[[], None]) -> None:
        """``stop`` is called when ``job`` is cancelled, now if it was."""
        with self._state:
            self._stop = stop
        try:
            self._check(job)
        except CancelledError:
            stop()

    def cancel(self, key: str) -> None:
        """End what is being done for the image, and begin nothing more for it."""
        with self._state:
            self._cancelled[key] = None
            while len(self._cancelled) > MOST_CANCELLED:
                del self._cancelled[next(iter(self._cancelled))]
            stop = self._stop
        if stop is not None and self._opened is not None and self._opened.job.key == key:
            stop()

    def _check(self, job: Job) -> None:
        with self._state:
            if job.key in self._cancelled:
                raise CancelledError("the run was cancelled")


_WORKER = Worker()


def run_block(job: Job, number: int) -> BlockReport:
    """A task: block ``number`` of ``job``. Raises ClusterError."""
    name = worker_name()
    with _told(f"block {number}", name), _WORKER.at_work(job):
        opened = _WORKER.opened(job)
        return opened.run(number, name, lambda stop: _WORKER.may_be_stopped(job, stop))


def run_level(job: Job, level: int, first: int, stop: int) -> int:
    """A task: chunks ``first`` to ``stop`` of a level of ``job``'s pyramid. Raises ClusterError."""
    with _told(f"level {level}", worker_name()), _WORKER.at_work(job):
        return make_chunks(job.target, level, range(first, stop))


def cancel_job(key: str) -> None:
    """Called in every worker when an image is cancelled."""
    _WORKER.cancel(key)


def given(job: Job) -> Job:
    """A task whose result is ``job``: sent once to a worker, and again by the scheduler where that is lost."""
    return job


def worker_name() -> str:
    """That of the worker that this task runs on."""
    from distributed import get_worker

    worker = get_worker()
    return f"{worker.name} ({worker.address})"


@contextmanager
def _told(what: str, name: str) -> Iterator[None]:
    """Errors say where they happened, and whether another worker may do better."""
    try:
        yield
    except (ClusterError, CancelledError):
        raise
    except (SinkError, SourceError, OSError, MemoryError) as error:
        raise ClusterError(f"{what} failed on worker {name}: {error or 'out of memory'}", True) from error
    except ExactileError as error:
        raise ClusterError(f"{what} failed on worker {name}: {error}") from error


def _check_same(what: str, asked: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    if differing := differences(asked, found):
        raise ClusterError(
            f"{what} on worker {worker_name()} is not the client's: {'; '.join(differing)}. What to do: give all "
            "workers the same files and the same versions of packages"
        )
