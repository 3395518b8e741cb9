"""How long a plan takes on a CPU, by one pass of the network over every wanted pixel once.

A whole pass computes the padding to an accepted size, tiles all their pixels, strips what carries copy and compute
again on top: ``predicted_passes``. Maps that are large cost more for each pixel, since they leave the caches; and
memory is touched for the first time, once for all tiles or strips. Each of these costs something by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from exactile.plan.lanes import unevenness
from exactile.plan.speed import TILE_OVERHEAD_PX, USUAL, Speed
from exactile.plan.strips import StripPlan
from exactile.plan.tiles import TilePlan
from exactile.tuning.tuning import PlanKind

Plan = TilePlan | StripPlan

ABOUT_THE_SAME = 0.03
"""Times that differ by so much are not told apart by what is predicted."""

MUCH_LESS = 0.5
"""Of the memory of the fastest plan: one that takes as long is worth it, though strips open three graphs for one."""


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
    """Return the fastest of plans in a rising number of lanes; not one that gains too little for the memory of its
    engines.
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
