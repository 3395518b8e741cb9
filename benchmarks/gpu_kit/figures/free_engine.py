"""Reading, decoding, cropping and writing with an engine that costs nothing, on some of the cores."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu_kit.pictures import jpeg_tiff
from benchmarks.gpu_kit.sizes import sizes
from benchmarks.harness.worker import ROOT

MEMORY_BYTES = 8 << 30


def on_cores(counts: Sequence[int], folder: Path) -> dict[str, Any]:
    """A check: does it scale with cores, or do Python's locks stop it? Each count in a process of its own."""
    side, rows = sizes().free_engine, []
    slide, target = jpeg_tiff(side, folder), folder / "free.tif"
    there = len(os.sched_getaffinity(0))
    for count in sorted({min(count, there) for count in counts}):
        request = {"image": str(slide), "output": str(target), "memory_bytes": MEMORY_BYTES, "tile": sizes().free_tile}
        found = _run(request, count)
        seconds = {stage: found[f"{stage}_s"] for stage in ("total", "read", "infer", "write")}
        rows.append(
            {
                "cores": count,
                "Mpx/s": side**2 / 1e6 / seconds["total"],
                **{f"{stage} s": value for stage, value in seconds.items()},
                "peak MiB": found["peak_bytes"] / (1 << 20),
            }
        )
    for row in rows:
        row["by one core"] = row["Mpx/s"] / rows[0]["Mpx/s"]
    return {"passed": bool(rows), "cores here": there, "rows": rows}


def _run(request: dict[str, Any], cores: int) -> dict[str, Any]:
    """The answer of ``benchmarks.scaling.free_engine`` on as many cores."""
    chosen = sorted(os.sched_getaffinity(0))[:cores]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.scaling.free_engine"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        preexec_fn=lambda: os.sched_setaffinity(0, chosen),  # no threads are running here
    )
    if done.returncode:
        raise RuntimeError(f"the free engine on {cores} cores ended with {done.returncode}: {done.stderr[-1500:]}")
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer
