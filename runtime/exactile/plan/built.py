"""Plans with the shapes of built engines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from exactile.contract import DeployedModel, StripModel
from exactile.contract.built_engine import BuiltEngine, EngineRole
from exactile.errors import PlanError
from exactile.plan.border import Border
from exactile.plan.choice import strip_plan
from exactile.plan.prediction import Plan
from exactile.plan.strips import StripPlan
from exactile.plan.tiles import TilePlan


def built_plans(
    model: DeployedModel, image: tuple[int, int], border: Border, engines: Sequence[BuiltEngine]
) -> Iterator[Plan]:
    """Yield every plan for an ``image`` of (height, width) pixels that ``engines`` can run.

    If none was built for its size modulo the stride, the image is extended to one that they were built for; but not if
    the network takes statistics of it, which extension would change.
    """
    found = list(_built_plans(model, image, border, engines))
    if not found and not model.levels:
        contract = replace(model.contract, geometry=model.contract.geometry.without_others)
        found = list(_built_plans(replace(model, contract=contract), image, border, engines))
    yield from found


def _built_plans(
    model: DeployedModel, image: tuple[int, int], border: Border, engines: Sequence[BuiltEngine]
) -> Iterator[Plan]:
    geometry = model.contract.geometry
    for shape in dict.fromkeys((e.rows[0], e.columns) for e in engines if e.role == "tile"):
        try:
            tiles = TilePlan.of(geometry, image, border, shape)
        except PlanError:
            continue
        if tiles.tile_shape == shape:
            yield tiles
    if model.strips is None:
        return
    for rows, columns in dict.fromkeys((e.rows[0], e.columns) for e in engines if e.role == "body"):
        try:
            strips = strip_plan(model, image, border, rows=rows, band=columns)
        except PlanError:
            continue
        if isinstance(strips, StripPlan) and strips.x.tile == columns and _all_built(strips, model.strips, engines):
            yield strips


def _all_built(plan: StripPlan, strips: StripModel, engines: Sequence[BuiltEngine]) -> bool:
    """Return whether there are engines for all strips; they were built from the graphs of ``strips``."""
    return plan.strips.graphs == strips.graphs and all(
        matching(engines, role, rows, plan.x.tile) is not None
        for role, rows in zip(plan.y.roles, plan.y.heights, strict=True)
    )


def check_strips(plan: StripPlan, engines: Sequence[BuiltEngine]) -> None:
    """Check that there is an engine for the highest strip of each role. Raises PlanError."""
    for role, rows in plan.y.highest.items():
        if matching(engines, role, rows, plan.x.tile) is None:
            raise PlanError(
                f"no engine was built for a {role} strip of {rows} x {plan.x.tile} pixels, which rows that arrive may "
                "need: build the engines again, or segment the image when it is complete"
            )


def matching(engines: Sequence[BuiltEngine], role: EngineRole, rows: int, columns: int) -> BuiltEngine | None:
    """Return the engine for this shape; of several the one with the largest batch."""
    fitting = [
        engine
        for engine in engines
        if engine.role == role and engine.columns == columns and engine.rows[0] <= rows <= engine.rows[1]
    ]
    return max(fitting, key=lambda engine: engine.batch, default=None)


def batch_of(plan: Plan, engines: Sequence[BuiltEngine] | None) -> int:
    """Return how many steps of ``plan`` are computed together."""
    if engines is None or isinstance(plan, StripPlan):
        return 1
    found = matching(engines, "tile", plan.y.tile, plan.x.tile)
    return found.batch if found is not None else 1
