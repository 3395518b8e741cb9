"""Judge what exactile makes of a bundle with a damaged contract, by what the intact bundle computes."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path

import numpy as np

from exactile.bundle.opening import open_bundle
from exactile.errors import ExactileError
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource
from fuzz.models import BUNDLE
from fuzz.outcome import Outcome, judge_message

NAME = "case.bundle"
BUDGET_BYTES = 1 << 30
PLANS = (("whole", None), ("tile", (96, 64)), ("strip", None))


@cache
def _image(channels: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (150, 110, channels), dtype=np.uint8)


def _segmented(folder: Path) -> list[np.ndarray]:
    """Return the result of every plan."""
    model = open_bundle(folder).model
    session = Session(model, memory_bytes=BUDGET_BYTES, threads=1)
    results = []
    for plan, tile in PLANS:
        sink = ArraySink()
        session.segment(ArraySource(_image(1)), sink, plan=plan, tile=tile)
        results.append(sink.result)
    return results


@cache
def expected(shared: Path) -> list[np.ndarray]:
    """Return what the intact bundle computes."""
    return _segmented(shared / BUNDLE)


def place_case(contract: bytes, shared: Path, folder: Path) -> Path:
    """Write the bundle to ``folder``, with another contract."""
    path = folder / NAME
    if not path.is_dir():
        shutil.copytree(shared / BUNDLE, path)
    (path / "contract.json").write_bytes(contract)
    return path


def judge(path: Path, wanted: list[np.ndarray]) -> Outcome:
    try:
        open_bundle(path)
    except ExactileError as error:
        return judge_message(str(error), path.name)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
        return Outcome(verdict="failure", detail=f"opening: {type(error).__name__}: {str(error)[:300]}")
    try:
        found = _segmented(path)
    except ExactileError as error:
        return judge_message(str(error), "")
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
        return Outcome(verdict="failure", detail=f"running: {type(error).__name__}: {str(error)[:300]}")
    for (plan, _), one, other in zip(PLANS, found, wanted, strict=True):
        if not np.array_equal(one, other):
            return Outcome(verdict="failure", detail=f"plan {plan} gives another result than the intact bundle")
    return Outcome(verdict="right")
