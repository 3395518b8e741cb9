"""One contender, once, in this process: a Task as JSON comes in, figures as JSON go out."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

import numpy as np

from benchmarks.harness.machine import versions
from benchmarks.harness.worker import peak_bytes, resident_bytes
from benchmarks.side_by_side.task import Task


def run(request: dict) -> dict:
    """Return seconds: ``import_s`` of its libraries, ``open_s`` of the network, ``seconds`` from image
    to label file.
    """
    task = Task(
        network=Path(request["network"]),
        image=Path(request["image"]),
        output=Path(request["output"]),
        threads=request["threads"],
        options=request["options"],
        scores=Path(request["scores"]) if request["scores"] else None,
    )
    begin = time.perf_counter()
    module = import_module(f"benchmarks.side_by_side.contenders.{request['module']}")
    imported = time.perf_counter()
    contender = module.Contender(task)
    opened = time.perf_counter()
    base_bytes = resident_bytes()
    if task.scores:
        np.save(task.scores, contender.score())
        late_s = 0.0
    else:
        late_s = contender.segment()
    done = time.perf_counter()
    return {
        "import_s": imported - begin,
        "open_s": opened - imported + late_s,
        "seconds": done - opened - late_s,
        "base_bytes": base_bytes,
        "peak_bytes": peak_bytes(),
        "tiling": asdict(contender.tiling),
        "versions": versions(tuple(request["packages"])),
    }


if __name__ == "__main__":
    print(json.dumps(run(json.load(sys.stdin))))
