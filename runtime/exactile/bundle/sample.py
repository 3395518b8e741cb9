"""Run a bundle's sample image on this machine in every plan, and compare with the result at conversion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.bundle.opening import Bundle
from exactile.planning import PlanName
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource

TOLERATED_LABELS = 1e-3
"""Fraction of pixels whose labels may differ: ties that the summation order of another processor decides otherwise."""

TOLERATED_DIFFERENCE = 1e-3
"""Largest difference of a map, relative to its largest value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRun:
    """``differing`` pixels of ``pixels`` (labels), or the largest difference (maps), by plan."""

    pixels: int
    differing: Mapping[PlanName, int]
    max_abs: Mapping[PlanName, float]
    holds: bool


def run_sample(bundle: Bundle) -> SampleRun:
    """Run one pass, and strips if the bundle has them for this processor; return the comparisons.
    Raises EngineError.
    """
    plans: tuple[PlanName, ...] = ("whole", "strip") if Session(bundle.model).has_strips else ("whole",)
    expected = bundle.sample_result
    results = {plan: _run(bundle, plan) for plan in plans}
    differing = {plan: int(np.count_nonzero(result != expected)) for plan, result in results.items()}
    max_abs = {plan: _largest(result, expected) for plan, result in results.items()}
    if bundle.model.contract.result.kind == "labels":
        holds = max(differing.values()) <= TOLERATED_LABELS * expected.size
    else:
        holds = max(max_abs.values()) <= TOLERATED_DIFFERENCE * max(float(np.abs(expected).max()), 1e-6)
    return SampleRun(pixels=expected.size, differing=differing, max_abs=max_abs, holds=holds)


def _run(bundle: Bundle, plan: PlanName) -> NDArray[Any]:
    sink = ArraySink()
    Session(bundle.model).segment(ArraySource(bundle.sample_image), sink, plan=plan)
    return sink.result


def _largest(result: NDArray[Any], expected: NDArray[Any]) -> float:
    return float(np.abs(result.astype(np.float64) - expected).max())
