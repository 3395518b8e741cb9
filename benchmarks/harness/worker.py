"""Run work in its own process: peak memory is that work's alone, and versions can differ."""

from __future__ import annotations

import compileall
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
LAST_WORDS = 1500
"""Characters of a failed worker's standard error in the message."""


class WorkerError(RuntimeError):
    """A worker ended without an answer; the message has the end of what it said."""


def run_worker(module: str, request: dict[str, Any], *, python: str | Path = sys.executable, timeout_s: float = 3600):
    """Run ``python -m module`` in the repository, ``request`` as JSON on its standard input; return the JSON of its
    last line.

    Raises WorkerError.
    """
    done = subprocess.run(
        [str(python), "-m", module],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=timeout_s,
        check=False,
        env={**os.environ, "PYTHONWARNINGS": "ignore", "NO_COLOR": "1"},
    )
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        raise WorkerError(f"{module} ended with status {done.returncode}: {done.stderr[-LAST_WORDS:]}")
    return json.loads(lines[-1])


def compile_packages() -> None:
    """Compile this tree, as an installation does: processes would otherwise do it each, where none may write it."""
    for package in ("runtime", "converters", "benchmarks"):
        compileall.compile_dir(ROOT / package, quiet=2)


def peak_bytes() -> int:
    """Return the most resident memory that this process had since it started."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("this system does not report a process's peak memory")


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
