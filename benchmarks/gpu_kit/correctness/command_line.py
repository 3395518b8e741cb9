"""The command line on the GPU, as a user types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from benchmarks.gpu_kit.correctness.reference import reference
from benchmarks.gpu_kit.network_names import TRAINED
from benchmarks.gpu_kit.networks import onnx_file
from benchmarks.gpu_kit.pictures import picture
from benchmarks.gpu_kit.provider import DEVICE
from benchmarks.gpu_kit.rehearsal import rehearsing
from benchmarks.gpu_kit.sizes import sizes
from benchmarks.harness.worker import ROOT


def doctor(seconds: float, folder: Path) -> dict[str, Any]:
    """Return a check: what ``exactile doctor`` finds; in a rehearsal, of the CPU alone."""
    device = "cpu" if rehearsing() else DEVICE
    done = _command("doctor", "--json", "--device", device, "--time-limit", seconds)
    (folder / "doctor.json").write_text(done.stdout)
    findings = json.loads(done.stdout)["findings"]
    rows = [{key: value for key, value in finding.items() if isinstance(value, str)} for finding in findings]
    return {"passed": done.returncode == 0, "status": done.returncode, "rows": rows}


def run(folder: Path) -> dict[str, Any]:
    """Return a check: ``exactile run`` with the trained network as ONNX, TIFF to TIFF; its labels against the CPU's."""
    image = picture(TRAINED, *sizes().exactness)
    source, target = folder / "command.tif", folder / "command-labels.tif"
    tifffile.imwrite(source, image, tile=(256, 256), compression="zlib", photometric="rgb")
    options = ("--scale", 255, "--mean", 0.5, "--std", 0.25, "--device", DEVICE, "--engine", "onnxruntime")
    more = ("--trace", folder / "command-trace.json", "--overwrite", "--no-progress", "--json")
    done = _command("run", onnx_file(TRAINED, folder), source, "-o", target, *options, *more)
    if done.returncode:
        raise RuntimeError(f"exactile run ended with {done.returncode}: {done.stderr[-1500:]}")
    summary, expected = json.loads(done.stdout), reference(TRAINED, image, folder)
    different = tifffile.imread(target) != expected.labels
    return {
        "passed": expected.margin(different) <= 2 * expected.tolerance and "CUDA" in summary["processor"],
        "labels, CPU": int(np.count_nonzero(different)),
        "processor": summary["processor"],
        "plan": summary["plan"],
        "verification": summary["verification"],
        "seconds": summary["seconds"],
    }


def _command(*arguments: object) -> subprocess.CompletedProcess[str]:
    module = "benchmarks.gpu_kit.rehearsed_command" if rehearsing() else "exactile"
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "120"},
    )
