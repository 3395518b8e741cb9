"""Predict the time of a plan on a CPU, relative to one pass of the network over every wanted pixel.

A whole pass computes the padding to an accepted size, tiles all their pixels, strips also what carries copy and compute
again: ``predicted_passes``. Large maps cost more for each pixel, because they leave the caches; and memory is touched
for the first time, once for all tiles or strips. Each tile or strip has a fixed cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from exactile.contract.tuning import PlanKind
from exactile.plan.lanes import unevenness
from exactile.plan.speed import TILE_OVERHEAD_PX, USUAL, Speed
from exactile.plan.strips import StripPlan
from exactile.plan.tiles import TilePlan

Plan = TilePlan | StripPlan

ABOUT_THE_SAME = 0.03
"""Predictions cannot tell times apart that differ by no more than this."""

MUCH_LESS = 0.5
"""Fraction of the fastest plan's memory: a plan with as much time and this little is preferred, although strips open
three graphs.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicted:
    """A plan, its time in passes, and the bytes that it needs."""

    plan: Plan
    time: float
    needed_bytes: int


def predicted_passes(plan: Plan) -> float:
    """Return what ``plan`` computes, in passes over the wanted pixels."""
    share = plan.computed_pixels / plan.wanted_pixels
    return share if isinstance(plan, TilePlan) else share * plan.strips.passes(plan.rows)


def predicted(plan: Plan, *, activation_bytes: int, needed_bytes: int, speed: Speed = USUAL) -> Predicted:
    """Return the time of ``plan``, whose inferences take ``activation_bytes`` of the bytes that it needs."""
    kind: PlanKind = "strip" if isinstance(plan, StripPlan) else "tile"
    inference = float(speed.of(kind, plan.lanes, activation_bytes))
    time = predicted_passes(plan) * inference * unevenness(plan)
    time += (len(plan) * TILE_OVERHEAD_PX + float(speed.once(activation_bytes))) / plan.wanted_pixels
    return Predicted(plan=plan, time=time, needed_bytes=needed_bytes)


def worthwhile(found: Sequence[Predicted]) -> Predicted:
    """Return the fastest of plans with rising numbers of lanes, except one that gains too little for its engines'
    memory.
    """
    best = found[0]
    for other in found[1:]:
        if other.time < best.time * (1 - ABOUT_THE_SAME):
            best = other
    return best


def frugal(found: Sequence[Predicted]) -> Predicted:
    """Return the fastest, or one that takes about the same time and needs much less memory."""
    best = min(found, key=lambda one: one.time)
    alike = (one for one in found if one.time <= best.time * (1 + ABOUT_THE_SAME))
    least = min(alike, key=lambda one: one.needed_bytes)
    return least if least.needed_bytes <= MUCH_LESS * best.needed_bytes else best
