"""How much memory this process uses and may use."""

from __future__ import annotations

import contextlib
import resource
import sys
from pathlib import Path

import psutil

SAFE_SHARE = 0.5
"""Share of the free memory that a run takes when nobody said how much."""

CGROUP_LIMITS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
)
"""Where containers state their limit and use, in cgroup versions 2 and 1."""


def resident_bytes() -> int:
    """Resident memory of this process now."""
    return int(psutil.Process().memory_info().rss)


def peak_resident_bytes() -> int:
    """The most resident memory that this process ever had.

    Linux' getrusage also counts what the parent had before exec, so /proc is asked first.
    """
    with contextlib.suppress(OSError, ValueError, IndexError):
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def free_bytes() -> int:
    """Memory that can be had without swapping, within a container's limit where there is one."""
    free = int(psutil.virtual_memory().available)
    for limit, used in CGROUP_LIMITS:
        with contextlib.suppress(OSError, ValueError):
            free = min(free, int(limit.read_text()) - int(used.read_text()))
    return max(0, free)


def default_budget_bytes() -> int:
    """A safe share of what is free, beside what the process already has."""
    return resident_bytes() + int(free_bytes() * SAFE_SHARE)
