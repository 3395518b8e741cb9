"""Describe a run as plain data: written beside an unfinished output, and compared before it is resumed."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import exactile
from exactile.contract import DeployedModel
from exactile.contract.graph_hash import graph_hash
from exactile.errors import ResumeError
from exactile.image_statistics.measure import Normalizers
from exactile.passes.found import NOTHING, BegunLevel, Found
from exactile.plan.prediction import Plan
from exactile.plan.strips import StripPlan
from exactile.planning import Wish
from exactile.sinks.resume.description import differences
from exactile.sources.protocol import Source
from exactile.tolerance.report import ToleranceReport

FOUND = ("plan", "normalizers", "statistics", "passes", "output", "exact", "tolerance")
"""Findings of the earlier run that a later one takes over: not requested, so not compared with the request."""


def asked_record(
    model: DeployedModel,
    source: Source,
    wish: Wish,
    arguments: Mapping[str, Any],
    processor: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the request; ``processor`` is what determines the last digits of results.

    The memory budget, threads and lanes are not part of it: they do not change results.
    """
    return {
        "exactile": exactile.__version__,
        **processor,
        "model": {"name": model.contract.model_name, "graph": graph_hash(model)},
        "image": source.identity(),
        "asked": {
            "plan": wish.plan,
            "tile": None if wish.tile is None else list(wish.tile),
            "border": wish.border,
            "background": None if wish.background is None else wish.background.describe(),
            "tolerance": None if wish.tolerance is None else wish.tolerance.text,
        },
        "arguments": dict(arguments),
    }


def complete_record(
    asked: Mapping[str, Any],
    plan: Plan,
    normalizers: Normalizers | None,
    statistics: Mapping[str, NDArray[Any]] | None = None,
    tolerance: ToleranceReport | None = None,
    *,
    lanes: int | None = None,
) -> dict[str, Any]:
    """Add what was found: the plan, the statistics of the image and of its feature maps, and the error.

    ``lanes`` are those at the beginning of the run, if the plan has others now.
    """
    lanes = plan.lanes if lanes is None else lanes
    shape = (plan.rows, plan.x.tile) if isinstance(plan, StripPlan) else plan.tile_shape
    found = None
    if normalizers is not None:
        found = {"offset": np.ravel(normalizers.offset).tolist(), "scale": np.ravel(normalizers.scale).tolist()}
    return {
        **asked,
        "plan": {"name": plan.name, "shape": list(shape), **({"lanes": lanes} if lanes > 1 else {})},
        "normalizers": found,
        "statistics": {
            name: {"shape": list(array.shape), "values": array.ravel().tolist()}
            for name, array in (statistics or {}).items()
        },
        "exact": tolerance is None or tolerance.exact,
        "tolerance": None if tolerance is None else tolerance.plain,
    }


def found_record(
    asked: Mapping[str, Any],
    plan: Plan,
    normalizers: Normalizers | None,
    found: Found,
    tolerance: ToleranceReport | None = None,
) -> dict[str, Any]:
    """Add what was found before the result is begun: as ``complete_record``, and the progress of the passes."""
    passes = {
        "tiles": [list(tile) for tile in found.tiles],
        "begun": None
        if found.begun is None
        else {"zones": found.begun.zones, "state": _text(found.begun.state, "<f8")},
        "statistics": {
            name: {"shape": list(array.shape), "values": _text(array, "<f4")}
            for name, array in found.statistics.items()
        },
    }
    return {**complete_record(asked, plan, normalizers, tolerance=tolerance), "passes": passes}


def _text(array: NDArray[Any], dtype: str) -> str:
    """Return the bits of ``array`` as text; that takes less time and memory than its numbers."""
    return base64.b64encode(array.astype(dtype).tobytes()).decode()


def _array(text: str, dtype: str) -> NDArray[Any]:
    return np.frombuffer(base64.b64decode(text), dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """What a resumed run takes over from the interrupted one."""

    plan: str
    shape: tuple[int, int]
    normalizers: Normalizers | None
    found: Found = NOTHING
    tolerance: ToleranceReport | None = None
    lanes: int = 1


def take_over(record: Mapping[str, Any], asked: Mapping[str, Any]) -> Earlier:
    """Read the findings of the earlier run. Raises ResumeError if its request was another one."""
    found = differences({key: value for key, value in record.items() if key not in FOUND}, asked)
    if found:
        raise ResumeError(
            f"the unfinished run is another one: {'; '.join(found)}. "
            "What to do: run it as before, or start again with --overwrite, without --resume"
        )
    plan, measured = record["plan"], record["normalizers"]
    height, width = plan["shape"]
    normalizers = None
    if measured is not None:
        normalizers = Normalizers(offset=np.array(measured["offset"]), scale=np.array(measured["scale"]))
    told = record.get("tolerance")
    return Earlier(
        plan=plan["name"],
        shape=(height, width),
        normalizers=normalizers,
        found=_found(record),
        tolerance=None if told is None else ToleranceReport.of_record(told),
        lanes=plan.get("lanes", 1),
    )


def _found(record: Mapping[str, Any]) -> Found:
    passes = record.get("passes")
    if passes is None:  # all of them are finished
        recorded = record.get("statistics", {})
        return Found(
            statistics={
                name: np.array(one["values"], np.float32).reshape(one["shape"]) for name, one in recorded.items()
            }
        )
    begun = passes["begun"]
    return Found(
        statistics={
            name: _array(one["values"], "<f4").astype(np.float32).reshape(one["shape"])
            for name, one in passes["statistics"].items()
        },
        tiles=tuple((height, width) for height, width in passes["tiles"]),
        begun=None
        if begun is None
        else BegunLevel(zones=begun["zones"], state=_array(begun["state"], "<f8").astype(np.float64)),
    )
