"""Reading, decoding, cropping and writing with an engine that costs nothing, on some of the cores."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu_kit.pictures import jpeg_tiff
from benchmarks.gpu_kit.sizes import sizes
from benchmarks.harness.worker import run_worker

WORKER = "benchmarks.scaling.free_engine"
MEMORY_BYTES = 8 << 30
LIMIT_S = 30.0


def on_cores(counts: Sequence[int], folder: Path) -> dict[str, Any]:
    """Check whether it scales with cores, or Python's locks stop it.

    Each number of cores in processes of its own: once for the speed, once with a meter of what is serial. From
    ``interpreter`` on: seconds for a gigapixel that no more cores make less.
    """
    there = len(os.sched_getaffinity(0))
    rows = [_row(count, folder) for count in sorted({min(count, there) for count in counts})]
    for row in rows:
        row["by one core"] = row["Mpx/s"] / rows[0]["Mpx/s"]
    return {"passed": bool(rows), "cores here": there, "rows": rows}


def _row(cores: int, folder: Path) -> dict[str, Any]:
    request = {
        "image": str(jpeg_tiff(sizes().free_engine, folder)),
        "output": str(folder / "free.tif"),
        "memory_bytes": MEMORY_BYTES,
        "tile": sizes().free_tile,
        "cores": cores,
    }
    plain, metered = (run_worker(WORKER, {**request, "metered": each}, timeout_s=LIMIT_S) for each in (False, True))
    by_gigapixel = 1000 / metered["megapixels"]
    serial = {stage: seconds * by_gigapixel for stage, seconds in metered["serial_s"].items()}
    interpreter = metered["interpreter_s"] * by_gigapixel
    return {
        "cores": cores,
        "Mpx/s": plain["megapixels"] / plain["total_s"],
        **{f"{stage} busy s": plain[f"{stage}_s"] for stage in ("read", "infer", "write")},
        "total s": plain["total_s"],
        "peak MiB": plain["peak_bytes"] / (1 << 20),
        "ceiling, Mpx/s": 1000 / max(interpreter, *serial.values()),
        "interpreter": interpreter,
        **serial,
    }
