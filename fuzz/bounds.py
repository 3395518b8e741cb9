"""The bounds of a case: seconds, and memory beyond what was there before."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from fuzz.outcome import Outcome

DEADLINE_S = 10.0
"""Seconds of a processor that exactile may take for a case."""

MOST_BYTES = 1 << 30
"""Resident memory beyond what the child had before."""


def measured(work: Callable[[], Outcome]) -> Outcome:
    """Call ``work`` in this process and hold it to DEADLINE_S and MOST_BYTES."""
    before = _reset_peak()
    start, used = time.monotonic(), time.process_time()
    outcome = work()
    seconds, grown = time.monotonic() - start, _peak_bytes() - before
    used = time.process_time() - used
    outcome = replace(outcome, seconds=seconds, grown_bytes=grown)
    if min(seconds, used) > DEADLINE_S:
        return replace(outcome, verdict="failure", detail=f"took {seconds:.1f} s; {outcome.detail}")
    if grown > MOST_BYTES:
        return replace(outcome, verdict="failure", detail=f"took {grown >> 20} MiB; {outcome.detail}")
    return outcome


def _reset_peak() -> int:
    """Begin a new high-water mark of resident memory (Linux); return where it begins."""
    Path("/proc/self/clear_refs").write_text("5")
    return _peak_bytes()


def _peak_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    raise OSError("/proc/self/status has no VmHWM; Linux is needed")
