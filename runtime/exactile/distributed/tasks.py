"""Tasks of one run on a Dask cluster: submitted a few at a time, and run again if another worker may succeed.

::

    pieces    | done | done | runs | done | runs | submitted | not yet submitted ...
                              ^ on a slow worker: an idle one runs it as well, and the first result counts
"""

from __future__ import annotations

import statistics
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from exactile.distributed.job import Batch, Job
from exactile.distributed.task_errors import as_cluster_error, may_succeed
from exactile.distributed.worker import cancel_job, given
from exactile.distributed.workers import Workers
from exactile.errors import CancelledError, ClusterError

if TYPE_CHECKING:
    from distributed import Client, Future

MOST_TRIES = 4
"""Attempts for a piece whose worker could not read or write; each may be on another worker."""

AHEAD = 2
"""Pieces that are submitted for each thread of the cluster: one that runs, and one that waits there."""

MOST_AHEAD = 16
"""Pieces per thread of the cluster that may be finished before the first unfinished one: their results wait for it."""

SLOW_S = 30.0
SLOW_TIMES = 4.0
"""A piece is also given to another worker after this time, and after this multiple of the time of others."""

UNKNOWN_TIMES = 10
"""If no other has ended yet: this multiple of the shortest time."""

REMEMBERED = 100
"""Pieces whose times are remembered: those that were submitted once."""

WORKERS_S = 60.0
"""Time to wait for the first worker."""

LOST = "the scheduler was lost, or cancelled a task. What to do: run it again with --resume"

POLL_S = 0.2

FETCH_S = 30.0
"""Time for a worker to return the result of a piece."""

SHARE_S, SHARE_TRIES = 30.0, 3
"""Time for all workers to get the shared data, before the first of them begins; and the number of attempts."""

TELL_S = 5.0
"""Time for all workers to hear that an image was cancelled."""

CANCEL_S = 60.0
"""Time to wait for a cancelled piece: it ends with its tile."""

Work = Callable[..., Any]
"""A function of ``exactile.distributed.worker``, called with the job, the shared data of all pieces,
and the piece.
"""


@dataclass(slots=True, eq=False)
class _Piece:
    """A piece: the tasks that may return its result, when the first of these was submitted, where it has failed."""

    index: int
    arguments: tuple[Any, ...]
    futures: list[Future] = field(default_factory=list)
    tries: int = 0
    avoided: set[str] = field(default_factory=set)
    submitted_s: float = field(default_factory=time.monotonic)


class Tasks:
    """Tasks of one image, or of many. A few are submitted at a time, however many pieces there are.

    Of several runs on a cluster, those with a higher ``priority`` are run first. Where some workers have ``resource``,
    a name among Dask's resources, only those get pieces. ``again`` counts pieces that were submitted more than once.
    """

    def __init__(
        self,
        client: Client,
        job: Job | Batch,
        stop: threading.Event,
        *,
        priority: int = 0,
        resource: str | None = None,
    ) -> None:
        self._client, self._job, self._stop, self._priority = client, job, stop, priority
        self._workers = Workers(client, resource)
        self._given: Future | None = None
        self._sent_now: Future | None = None
        self._running: list[_Piece] = []
        self._runs = self._submitted = self._copies = 0
        self._ahead: int | None = None
        self._seconds: deque[float] = deque(maxlen=REMEMBERED)
        self._abandoned: set[str] = set()
        self.again = 0

    def wait_for_workers(self) -> None:
        """Raise ClusterError if there are no workers, CancelledError."""
        end = time.monotonic() + WORKERS_S
        while not self._workers.threads:
            self._check()
            if time.monotonic() > end:
                raise ClusterError(
                    f"the cluster at {self._client.scheduler.address} has no workers. What to do: start some, for "
                    f"instance: dask worker {self._client.scheduler.address} --nthreads 1"
                )
            time.sleep(POLL_S)

    def share(self, name: str, shared: Any) -> Future:
        """Return ``shared``, sent to each worker once.

        It is sent to all of them now: Dask prefers workers that hold a task's data, so that others would get no tasks.
        """
        from distributed import wait
        from distributed.client import FuturesCancelledError

        sent = self._sent(name, shared)
        for _ in range(SHARE_TRIES - 1):
            try:
                wait([sent], timeout=SHARE_S)
                break
            except TimeoutError:  # it may have gone to a worker that stalls
                self._check()
                sent = self._sent(name, shared, self._workers.free((), self._abandoned))
            except FuturesCancelledError as error:
                raise ClusterError(f"{LOST} ({error})") from error

        def replicate() -> None:
            with suppress(Exception):  # a worker that stalls, or a cluster that is gone
                self._client.replicate([sent])

        in_time(replicate, "exactile-share", SHARE_S)
        return sent

    def _sent(self, name: str, shared: Any, workers: list[str] | None = None) -> Future:
        """Return a future for ``shared``, on ``workers``, if given."""
        self._copies += 1
        key = f"exactile-{name}-{self._job.key}-{self._copies}"
        with warnings.catch_warnings():  # large weights are meant to be sent
            warnings.filterwarnings("ignore", "Sending large graph", UserWarning)
            return self._client.submit(given, shared, key=key, pure=False, workers=workers or None)

    def run(
        self,
        work: Work,
        shared: Any,
        pieces: Iterable[tuple[Any, ...]],
        *,
        keep_going: bool = False,
        ahead: int | None = None,
    ) -> Iterator[tuple[tuple[Any, ...], Any]]:
        """Run ``work(job, shared, *piece)`` for each of ``pieces``; yield each piece with its result, as they complete.

        They come nearly in order: at most ``ahead`` are done before the first that is not (default: by the size of the
        cluster). With ``keep_going``, for pieces of any size that two workers cannot run at once, a failed piece yields
        its error, and a slow one is waited for. Raises ClusterError, CancelledError.
        """
        self._runs += 1
        self._submitted, self._ahead = 0, ahead
        self._seconds.clear()
        if self._given is None:
            self._given = self.share("run", self._job)
        self._sent_now = self.share(f"{work.__name__}-{self._runs}", shared)
        left = enumerate(pieces)
        exhausted = False
        while True:
            exhausted = exhausted or self._submit_more(left, work)
            if not self._running:
                return
            if not self._some_ended():
                if not keep_going:
                    self._take_over_slow(work, shared)
                continue
            fetched = self._results()
            for piece in list(self._running):
                try:
                    done, result = self._looked_at(piece, work, fetched)
                except Exception as error:
                    if not keep_going:
                        raise
                    self._running.remove(piece)
                    done, result = True, error
                if done:
                    yield piece.arguments, result

    def _some_ended(self) -> bool:
        """Wait briefly until a task ends. Raises ClusterError, CancelledError."""
        from distributed import wait
        from distributed.client import FuturesCancelledError

        ended = True
        try:
            wait(self._futures(), timeout=POLL_S, return_when="FIRST_COMPLETED")
        except TimeoutError:
            ended = False
        except FuturesCancelledError as error:
            raise ClusterError(f"{LOST} ({error})") from error
        self._check()
        return ended

    def end(self) -> None:
        """Stop slow workers from computing what others have finished."""
        if self._abandoned:
            self._tell_workers()

    def cancel(self) -> None:
        """Drop waiting pieces, and wait until nothing of the image is being written."""
        self._tell_workers()
        end = time.monotonic() + CANCEL_S
        for future in self._futures():
            with suppress(Exception):
                future.exception(timeout=max(POLL_S, end - time.monotonic()))
        self._running.clear()

    def _tell_workers(self) -> None:
        """Make workers stop their work on the image; one that does not answer is not waited for long."""

        def tell() -> None:
            with suppress(Exception):  # a scheduler that is gone has no workers either
                self._client.run(cancel_job, self._job.key, on_error="ignore")

        in_time(tell, "exactile-cancel", TELL_S)

    def _results(self) -> dict[Future, Any] | None:
        """Return the results of all tasks that have succeeded, fetched at once; None if a worker does not return its
        own.
        """
        done = [future for future in self._futures() if future.status == "finished"]

        async def fetch() -> Any:
            return await self._client.gather(done, asynchronous=True)

        try:
            return dict(zip(done, self._client.sync(fetch, callback_timeout=FETCH_S), strict=True))
        except Exception:  # noqa: BLE001 -- then each is asked separately, and reports what is wrong with it
            return None

    def _looked_at(self, piece: _Piece, work: Work, fetched: Mapping[Future, Any] | None) -> tuple[bool, Any]:
        """Return whether it is done, and its result; submit it again if it failed and may succeed."""
        for future in list(piece.futures):
            status = future.status
            if status in {"pending", "lost"}:  # also a result that is lost with its worker: it is computed again
                continue
            if status == "finished" and fetched is not None:
                if future not in fetched:  # it ended in the meantime: next time
                    continue
                result, error = fetched[future], None
            else:
                result, error = _outcome_of(future, status)
            if error is None:
                self._running.remove(piece)
                if piece.tries == 1:
                    self._seconds.append(time.monotonic() - piece.submitted_s)
                self._abandon([other for other in piece.futures if other is not future])
                return True, result
            piece.futures.remove(future)
            if piece.futures:  # another worker has it, too
                continue
            if piece.tries >= MOST_TRIES or not may_succeed(error):
                raise as_cluster_error(error) from error
            self.again += 1
            if isinstance(error, ClusterError) and error.worker:
                piece.avoided.add(error.worker)
                self._workers.failed(error.worker)
            self._submit(work, piece)
        return False, None

    def _abandon(self, futures: list[Future]) -> None:
        """Forget a task that another worker has overtaken."""
        for future in futures:
            self._abandoned.add(future.key)
            future.release()

    def _submit_more(self, left: Iterator[tuple[int, tuple[Any, ...]]], work: Work) -> bool:
        """Return whether nothing is left."""
        while self._may_submit():
            index, arguments = next(left, (-1, ()))
            if index < 0:
                return True
            piece, self._submitted = _Piece(index, arguments), index + 1
            self._running.append(piece)
            self._submit(work, piece)
        return False

    def _submit(self, work: Work, piece: _Piece, workers: list[str] | None = None) -> None:
        key = f"exactile-{work.__name__}-{self._job.key}-{self._runs}-{piece.index}-{piece.tries}"
        arguments = self._given, self._sent_now, *piece.arguments
        workers = workers or self._workers.allowed(piece.avoided)
        piece.futures.append(
            self._client.submit(
                work,
                *arguments,
                key=key,
                pure=False,
                priority=self._priority,
                workers=workers,
                allow_other_workers=workers is not None and self._workers.allows_others,  # in case all of these end
            )
        )
        piece.tries += 1

    def _take_over_slow(self, work: Work, shared: Any) -> None:
        """Also give the pieces of slow workers to idle ones."""
        usual_s = SLOW_TIMES * statistics.median(self._seconds) if self._seconds else UNKNOWN_TIMES * SLOW_S
        allowed_s, now = max(SLOW_S, usual_s), time.monotonic()
        slow = [
            piece
            for piece in self._running
            if len(piece.futures) == 1 and piece.tries < MOST_TRIES and now - piece.submitted_s > allowed_s
        ]
        keys = {future.key for piece in slow for future in piece.futures}
        free = self._workers.free(keys, self._abandoned) if slow else []
        if not free:
            return
        # The shared data of pieces, these and later ones, may lie on the worker that does not answer.
        self._given, self._sent_now = self._sent("run", self._job, free), self._sent("again", shared, free)
        for piece in slow:
            self.again += 1
            self._submit(work, piece, free)

    def _may_submit(self) -> bool:
        threads = self._workers.threads
        if len(self._running) >= max(2, AHEAD * threads):
            return False
        if not self._running:
            return True
        most = MOST_AHEAD * threads if self._ahead is None else min(self._ahead, MOST_AHEAD * threads)
        return self._submitted - self._running[0].index <= max(2, most)

    def _futures(self) -> list[Future]:
        return [future for piece in self._running for future in piece.futures]

    def _check(self) -> None:
        if self._stop.is_set():
            raise CancelledError("the run was cancelled")
        if self._client.status not in {"running", "connecting"}:
            raise ClusterError("the connection to the cluster was closed")


def in_time(work: Callable[[], None], name: str, seconds: float) -> None:
    """Run ``work`` in a thread, and wait at most ``seconds``."""
    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    thread.join(seconds)


def _outcome_of(future: Future, status: str) -> tuple[Any, BaseException | None]:
    """Return the result of a task with ``status``, or its error."""
    from distributed.client import FuturesCancelledError

    if status == "finished":
        try:
            return future.result(timeout=FETCH_S), None
        except TimeoutError:
            return None, ClusterError("a worker does not give its result", True)
        except FuturesCancelledError:
            return None, ClusterError(LOST)
    if status != "error":
        return None, ClusterError(LOST)
    return None, future.exception()
