"""Resume a killed run on the GPU to the same bytes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.gpu_kit.correctness.plans import tile_side
from benchmarks.gpu_kit.networks import model
from benchmarks.gpu_kit.pictures import jpeg_tiff
from benchmarks.gpu_kit.provider import Binding, gpu_session
from benchmarks.gpu_kit.rehearsal import prepare_process
from benchmarks.gpu_kit.sizes import sizes
from benchmarks.harness.worker import ROOT
from exactile import open_sink, open_source
from exactile.runs.summary import Summary
from exactile.session import Session

KILLED_AT = 0.5
"""Fraction of the result that is written when the process is killed."""


def killed(network: str, plan: str, binding: Binding, folder: Path) -> dict[str, Any]:
    """Check one run without a break, and one that is killed half way and resumed. Passed: the same file."""
    whole, broken = folder / f"whole-{plan}.tif", folder / f"broken-{plan}.tif"
    jpeg_tiff(sizes().resumed, folder)
    request = json.dumps([network, plan, binding, str(folder), str(broken)])
    command = [sys.executable, "-m", "benchmarks.gpu_kit.correctness.ending_early", request]
    child = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    if child.returncode != -signal.SIGKILL:
        raise RuntimeError(f"the run that was to be killed ended with {child.returncode}: {child.stderr[-1500:]}")
    with gpu_session(model(network, folder), binding) as session:
        segment(session, plan, whole, folder)
        summary = segment(session, plan, broken, folder, resume=True)
    same = whole.read_bytes() == broken.read_bytes()
    kept = summary.kept_pixels / sizes().resumed ** 2
    return {"passed": same and 0 < kept < 1, "same bytes": same, "kept": kept, "plan": plan, "binding": binding}


def segment(
    session: Session, plan: str, target: Path, folder: Path, *, resume: bool = False, progress: Any = None
) -> Summary:
    side = sizes().resumed
    shape = (max(side // 8, tile_side(session.contract)),) * 2 if plan == "tile" else (sizes().rows, side)
    source = open_source(jpeg_tiff(side, folder))
    try:
        sink = open_sink(target, resumable=True, overwrite=not resume)
        return session.segment(source, sink, plan=plan, tile=shape, resume=resume, progress=progress)
    finally:
        source.close()


def run_and_die(network: str, plan: str, binding: Binding, folder: Path, target: Path) -> None:
    """Kill this process when enough is written."""
    written = 0

    def progress(pixels: int) -> None:
        nonlocal written
        written += pixels
        if written >= KILLED_AT * sizes().resumed ** 2:
            os.kill(os.getpid(), signal.SIGKILL)

    with gpu_session(model(network, folder), binding) as session:
        segment(session, plan, target, folder, progress=progress)


if __name__ == "__main__":
    prepare_process()
    _network, _plan, _binding, _folder, _target = json.loads(sys.argv[1])
    run_and_die(_network, _plan, _binding, Path(_folder), Path(_target))
