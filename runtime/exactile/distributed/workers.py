"""Choose the workers of a cluster that get pieces of work: those that answer, have the resource, and do not fail."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Container
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distributed import Client

ALIVE_S = 20.0
"""Seconds without a sign of life after which a worker gets no pieces. Dask itself waits five minutes before it gives up
a worker.
"""

LOOK_S = 5.0
"""Seconds between checks of the workers."""

MOST_FAILURES = 3
"""Number of failed pieces that may succeed elsewhere, after which a worker gets no more while there are others."""


class Workers:
    """The workers of a cluster. If some have ``resource``, one of Dask's resources, the others get nothing."""

    def __init__(self, client: Client, resource: str | None = None) -> None:
        self._client, self._resource = client, resource
        self._live: dict[str, int] = {}
        self._are_all, self._looked_s = True, -LOOK_S
        self._failures: Counter[str] = Counter()

    @property
    def threads(self) -> int:
        """Threads of all workers; refreshed every LOOK_S seconds, because a cluster may grow and shrink."""
        if not self._live or time.monotonic() - self._looked_s > LOOK_S:
            self.look()
        return sum(self._live.values())

    @property
    def allows_others(self) -> bool:
        """Whether any worker may run a piece when its preferred workers have ended."""
        return self._resource is None

    def failed(self, worker: str) -> None:
        """Note that a piece failed on the worker that may succeed on another."""
        self._failures[worker] += 1
        self.look()

    def allowed(self, avoided: Collection[str] = ()) -> list[str] | None:
        """Return workers that may run a piece that failed on ``avoided``: others if there are any.
        None: all workers.
        """
        others = [worker for worker in self._live if worker not in avoided]
        if avoided and others:
            return others
        return None if self._are_all else list(self._live)

    def free(self, slow: Container[str], abandoned: Container[str]) -> list[str]:
        """Return idle workers, else those whose tasks are all ``slow``; tasks that are ``abandoned`` do not count.

        A slow task may wait for data of another worker that does not send it.
        """
        self.look()
        processing = {
            worker: [key for key in keys if key not in abandoned] for worker, keys in self._client.processing().items()
        }
        left = {worker: [key for key in keys if key not in slow] for worker, keys in processing.items()}
        found = [worker for worker in self._live if not left.get(worker)]
        return [worker for worker in found if not processing.get(worker)] or found

    def look(self) -> None:
        """Find the workers that get pieces, and their threads."""
        known = self._client.scheduler_info(n_workers=-1)["workers"]
        having = {worker: one for worker, one in known.items() if one["resources"].get(self._resource)} or known
        newest = max((one["last_seen"] for one in having.values()), default=0.0)  # by the scheduler's clock
        live = {worker: one["nthreads"] for worker, one in having.items() if newest - one["last_seen"] < ALIVE_S}
        good = {worker: threads for worker, threads in live.items() if self._failures[worker] < MOST_FAILURES}
        self._live = good or live
        self._are_all, self._looked_s = len(self._live) == len(known), time.monotonic()
