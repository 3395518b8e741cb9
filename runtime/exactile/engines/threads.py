"""Number of threads of the network."""

from __future__ import annotations

import os

from exactile.errors import OptionError


def compute_threads(asked: int | None) -> int:
    """Return ``asked``, or one for each CPU that this process may run on.

    Raises OptionError when fewer than one is requested.
    """
    if asked is None:
        # Containers and batch systems restrict processes to some CPUs; os.cpu_count() counts them all.
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if asked < 1:
        raise OptionError(f"cannot compute with {asked} threads; ask for 1 or more, or for none to use all CPUs")
    return asked


def threads_of_lane(asked: int | None, lanes: int) -> int:
    """Return the share of each of ``lanes`` concurrent engines; ``asked`` is for all of them together."""
    return max(1, compute_threads(asked) // lanes)
