"""How much memory this process uses and may use."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import resource
import sys
from pathlib import Path
from typing import Any

import psutil

SAFE_SHARE = 0.5
"""Fraction of the free memory that a run takes by default."""

CGROUP_LIMITS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
)
"""Files in which containers state their limit and use, in cgroup versions 2 and 1."""


LARGEST_KEPT_BYTES = 1 << 20
"""Blocks of memory from this size on are returned to the system as soon as they are freed."""

_M_MMAP_THRESHOLD = -3


def return_freed_memory() -> None:
    """Return the C library's free lists to the system, if it can do that (glibc)."""
    trim = getattr(_c_library(), "malloc_trim", None)
    if trim is not None:
        trim(0)


def return_large_blocks_at_once() -> None:
    """Make the C library (glibc) give large blocks back when they are freed, for the rest of the process.

    By default it does so until one was freed, and from then on keeps freed blocks of up to that size, 32 MiB at most,
    resident in each thread that had one.
    """
    choose = getattr(_c_library(), "mallopt", None)
    if choose is not None:
        choose(_M_MMAP_THRESHOLD, LARGEST_KEPT_BYTES)


def settled_resident_bytes() -> int:
    """Return the resident memory of this process once everything unused is returned to the system."""
    gc.collect()
    return_freed_memory()
    return resident_bytes()


def _c_library() -> Any:
    return ctypes.CDLL(None) if hasattr(ctypes, "CDLL") else None


def resident_bytes() -> int:
    """Return the resident memory of this process now."""
    return int(psutil.Process().memory_info().rss)


def peak_resident_bytes() -> int:
    """Return the peak resident memory of this process.

    Linux' getrusage also counts what the parent had before exec, so /proc is read first.
    """
    with contextlib.suppress(OSError, ValueError, IndexError):
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def free_bytes() -> int:
    """Return the memory that is available without swapping, within a container's limit if there is one."""
    free = int(psutil.virtual_memory().available)
    for limit, used in CGROUP_LIMITS:
        with contextlib.suppress(OSError, ValueError):
            free = min(free, int(limit.read_text()) - int(used.read_text()))
    return max(0, free)


def default_budget_bytes() -> int:
    """Return a safe share of the free memory, plus what the process already has."""
    return resident_bytes() + int(free_bytes() * SAFE_SHARE)
