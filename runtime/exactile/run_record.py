"""What a run is, as plain data: written beside an unfinished output, and compared before it is gone on with."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import exactile
from exactile.contract import DeployedModel
from exactile.errors import ResumeError
from exactile.passes.found import NOTHING, BegunLevel, Found
from exactile.plan.prediction import Plan
from exactile.plan.strips import StripPlan
from exactile.planning import Wish
from exactile.sinks.restoration import differences
from exactile.sources.protocol import Source
from exactile.statistics import Normalizers

FOUND = ("plan", "normalizers", "statistics", "passes", "output")
"""What the earlier run found out and a later one takes over: not asked for, so not compared with what is asked."""


def asked_record(
    model: DeployedModel,
    source: Source,
    wish: Wish,
    arguments: Mapping[str, Any],
    processor: Mapping[str, Any],
) -> dict[str, Any]:
    """What was asked for; ``processor`` is what of it decides about the last digits of results.

    The memory budget and threads are not part of it: they do not change results.
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
        },
        "arguments": dict(arguments),
    }


def complete_record(
    asked: Mapping[str, Any],
    plan: Plan,
    normalizers: Normalizers | None,
    statistics: Mapping[str, NDArray[Any]] | None = None,
) -> dict[str, Any]:
    """With what was found out: the plan, and the statistics of the image and of its feature maps."""
    shape = (plan.rows, plan.x.tile) if isinstance(plan, StripPlan) else plan.tile_shape
    found = None
    if normalizers is not None:
        found = {"offset": np.ravel(normalizers.offset).tolist(), "scale": np.ravel(normalizers.scale).tolist()}
    return {
        **asked,
        "plan": {"name": plan.name, "shape": list(shape)},
        "normalizers": found,
        "statistics": {
            name: {"shape": list(array.shape), "values": array.ravel().tolist()}
            for name, array in (statistics or {}).items()
        },
    }


def found_record(asked: Mapping[str, Any], plan: Plan, normalizers: Normalizers | None, found: Found) -> dict[str, Any]:
    """With what was found out before the result is begun: as ``complete_record``, and how far the passes are."""
    begun = None
    if found.begun is not None:
        state = base64.b64encode(found.begun.state.astype("<f8").tobytes()).decode()
        begun = {"zones": found.begun.zones, "state": state}
    passes = {"tiles": [list(tile) for tile in found.tiles], "begun": begun}
    return {**complete_record(asked, plan, normalizers, found.statistics), "passes": passes}


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """What a run that goes on takes over from the one that ended early."""

    plan: str
    shape: tuple[int, int]
    normalizers: Normalizers | None
    found: Found = NOTHING


def take_over(record: Mapping[str, Any], asked: Mapping[str, Any]) -> Earlier:
    """Read what the earlier run found out. Raises ResumeError where it was asked for something else."""
    found = differences({key: value for key, value in record.items() if key not in FOUND}, asked)
    if found:
        raise ResumeError(
            f"the unfinished run is another one: {'; '.join(found)}. "
            "What to do: run it as before, or start anew with --overwrite, without --resume"
        )
    plan, measured = record["plan"], record["normalizers"]
    height, width = plan["shape"]
    normalizers = None
    if measured is not None:
        normalizers = Normalizers(offset=np.array(measured["offset"]), scale=np.array(measured["scale"]))
    statistics = {
        name: np.array(found["values"], np.float32).reshape(found["shape"])
        for name, found in record.get("statistics", {}).items()
    }
    return Earlier(
        plan=plan["name"],
        shape=(height, width),
        normalizers=normalizers,
        found=_found(statistics, record.get("passes", {"tiles": [], "begun": None})),
    )


def _found(statistics: Mapping[str, NDArray[Any]], passes: Mapping[str, Any]) -> Found:
    begun = None
    if passes["begun"] is not None:
        state = np.frombuffer(base64.b64decode(passes["begun"]["state"]), "<f8")
        begun = BegunLevel(zones=passes["begun"]["zones"], state=state)
    return Found(statistics=statistics, tiles=tuple((h, w) for h, w in passes["tiles"]), begun=begun)


def graph_hash(model: DeployedModel) -> str:
    """SHA-256 of the graphs and their weights."""
    found = hashlib.sha256()
    for one in (model, *(level.model for level in model.levels)):
        found.update(one.graph)
        for name in sorted(one.weights):
            found.update(name.encode())
            found.update(np.ascontiguousarray(one.weights[name]).data)
    return found.hexdigest()
