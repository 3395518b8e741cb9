"""Tasks of one image on a Dask cluster: submitted a few at a time, run again where another worker may succeed."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from exactile.distributed.job import BlockReport, Job
from exactile.distributed.worker import cancel_job, given, run_block, run_level
from exactile.errors import CancelledError, ClusterError, ExactileError

if TYPE_CHECKING:
    from distributed import Client, Future

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


class Tasks:
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
