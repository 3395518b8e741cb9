"""FP16 on the GPU: how much it changes, and what it brings."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu_kit.networks import model
from benchmarks.gpu_kit.pictures import Picture, picture
from benchmarks.gpu_kit.provider import Binding, gpu_session
from benchmarks.gpu_kit.sizes import sizes
from benchmarks.harness.turns import in_turn
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource

MOST_DIFFERENT = 0.05
"""Fraction of labels: more is not rounding."""


def fp16(networks: Sequence[str], binding: Binding, folder: Path) -> dict[str, Any]:
    """Return a check: labels of FP16 against those of FP32, and the seconds of the network alone, in turn."""
    rows = [_row(name, binding, folder) for name in networks]
    return {"passed": all(row["labels that differ"] <= MOST_DIFFERENT for row in rows), "rows": rows}


def _row(name: str, binding: Binding, folder: Path) -> dict[str, Any]:
    side = sizes().memory
    image = picture(name, side, side)
    full, half = (model(name, folder, precision=precision) for precision in ("fp32", "fp16"))
    found: dict[str, Any] = {}

    def once(precision: str, session: Session) -> float:
        found[precision], seconds = _labels(session, image)
        return seconds

    with gpu_session(full, binding) as one, gpu_session(half, binding) as other:
        ways = {"fp32": lambda: once("fp32", one), "fp16": lambda: once("fp16", other)}
        seconds = in_turn(ways, sizes().rounds, warm_up=1)
    classes = full.contract.result.classes
    return {
        "network": name,
        "labels that differ": float(np.mean(found["fp32"] != found["fp16"])),
        "IoU by class": [_iou(found["fp32"] == label, found["fp16"] == label) for label in range(classes)],
        "fp32, s": statistics.median(seconds["fp32"]),
        "fp16, s": statistics.median(seconds["fp16"]),
        "fp16 / fp32": statistics.median(seconds["fp16"]) / statistics.median(seconds["fp32"]),
    }


def _labels(session: Session, image: Picture) -> tuple[Any, float]:
    """Return labels of one pass, and what the network took of the GPU."""
    sink = ArraySink()
    summary = session.segment(ArraySource(image), sink, plan="whole")
    return sink.result, summary.seconds.infer


def _iou(one: Any, other: Any) -> float | None:
    either = np.count_nonzero(one | other)
    return round(np.count_nonzero(one & other) / either, 6) if either else None
