"""Device memory: what a plan takes at its peak, beside what was predicted; and what happens when it runs out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu_kit.correctness.plans import STREAM, Way, run, ways
from benchmarks.gpu_kit.correctness.reference import reference
from benchmarks.gpu_kit.device_memory import sampler
from benchmarks.gpu_kit.networks import model
from benchmarks.gpu_kit.pictures import picture
from benchmarks.gpu_kit.provider import Binding, gpu_session
from benchmarks.gpu_kit.rehearsal import rehearsing
from benchmarks.gpu_kit.sizes import sizes
from exactile.contract import DeployedModel
from exactile.cuda.choice import open_driver
from exactile.errors import BudgetError, DeviceMemoryError
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource

MIB = 1 << 20
SMALL_GPU_BYTES = 64 << 20
"""Memory of the emulated GPU to fill: it is the host's."""


def against_prediction(networks: Sequence[str], binding: Binding, folder: Path) -> dict[str, Any]:
    """Return a check: passed if no plan takes more than was predicted for it.

    Measured is the peak over what was in use before: contexts, and kernels that are loaded only once, are not in it.
    """
    side, rows = sizes().memory, []
    with sampler() as used:
        for name in networks:
            deployed, image = model(name, folder), picture(name, side, side)
            with gpu_session(deployed, binding) as keeps_the_context:
                for way in ways(deployed, side):
                    if way.name in {"tiles again", STREAM}:
                        continue
                    with gpu_session(deployed, binding) as session:
                        run(session, image, way)  # loads what it uses
                    before = used.peak_since_last()
                    before = used.peak_since_last()
                    with gpu_session(deployed, binding) as session:
                        run(session, image, way)
                        peak = used.peak_since_last()
                    predicted = predicted_bytes(keeps_the_context, image, way)
                    rows.append(
                        {
                            "network": name,
                            "plan": way.name,
                            "predicted MiB": predicted / MIB,
                            "measured MiB": (peak - before) / MIB,
                            "measured / predicted": (peak - before) / predicted,
                        }
                    )
        source = used.source
    right = all(row["measured / predicted"] <= 1 for row in rows)
    return {"passed": right, "measured by": source, "rows": rows}


def predicted_bytes(session: Session, image: Any, way: Way) -> int:
    """Return device bytes that the planner reckons with."""
    source, sink = ArraySource(image), ArraySink()
    chosen = session.plan(source, sink, plan=way.plan, tile=way.tile).plan
    return session._planner.memory_need(chosen, source, sink).device_bytes  # noqa: SLF001


def crowded(network: str, binding: Binding, folder: Path) -> dict[str, Any]:
    """Check a run that was planned for all of the GPU while something else has filled it.

    Passed: a smaller plan is taken, and the summary says so, and its labels are right; a plan that was forced is
    refused.
    """
    side = sizes().crowded
    deployed, image = model(network, folder), picture(network, side, side)
    expected = reference(network, image, folder)
    if rehearsing():
        from tests.emulation.driver import load

        load().reset(devices=1, memory_bytes=SMALL_GPU_BYTES)
    with _filled(sizes().crowded_left_bytes) as total_bytes:
        said = _forced(deployed, image, binding, total_bytes)
        with gpu_session(deployed, binding, device_memory_bytes=total_bytes) as session:
            sink = ArraySink()
            summary = session.segment(ArraySource(image), sink, plan="tile")
    different = sink.result != expected.labels
    right = expected.margin(different) <= 2 * expected.tolerance
    smaller = "did not fit the GPU's memory" in summary.reason
    return {
        "passed": right and smaller and bool(said),
        "reason": summary.reason,
        "tile": list(summary.tile),
        "labels, CPU": int(np.count_nonzero(different)),
        "one pass": said,
    }


def _forced(deployed: DeployedModel, image: Any, binding: Binding, total_bytes: int) -> str:
    """Return the message that refuses one pass; empty if it is not refused."""
    try:
        with gpu_session(deployed, binding, device_memory_bytes=total_bytes) as session:
            session.segment(ArraySource(image), ArraySink(), plan="whole")
    except (DeviceMemoryError, BudgetError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


@contextmanager
def _filled(left_bytes: int) -> Iterator[int]:
    """Yield the first GPU with ``left_bytes`` free; gives its size."""
    device = open_driver().open(0)
    try:
        with device.current():
            device.memory.allocate(device.memory.free_bytes() - left_bytes)
        yield device.info.total_bytes
    finally:
        device.close()
