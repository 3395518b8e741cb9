"""How long a plan takes on a CPU, by one pass of the network over every wanted pixel once.

A whole pass computes the padding to an accepted size, tiles all their pixels, strips what carries copy and compute
again on top: ``predicted_passes``. Maps that are large cost more for each pixel: they leave the caches, and their pages
are touched for the first time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from exactile.plan.lanes import lane_time
from exactile.plan.strips import StripPlan
from exactile.plan.tiles import TilePlan

Plan = TilePlan | StripPlan

LARGE_BYTES = 512 << 20
LARGE_MAPS = 0.1
"""What each doubling of the memory of an inference costs beyond ``LARGE_BYTES``, of its time.

Measured with U-Nets of 16 and 64 features on two cores, one pass beside strips: 1.11 to 1.4 times for 1.4 GiB, 1.29 and
1.31 for 5.7 GiB.
"""

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
    """What ``plan`` computes, in passes over the wanted pixels."""
    share = plan.computed_pixels / plan.wanted_pixels
    return share if isinstance(plan, TilePlan) else share * plan.strips.passes(plan.rows)


def predicted(plan: Plan, *, activation_bytes: int, needed_bytes: int, threads: int = 1) -> Predicted:
    """The time of ``plan`` with ``threads``, whose inferences take ``activation_bytes`` of the bytes that it needs."""
    time = predicted_passes(plan) * float(slowed(activation_bytes)) * lane_time(plan, threads)
    return Predicted(plan=plan, time=time, needed_bytes=needed_bytes)


def slowed(activation_bytes: ArrayLike) -> NDArray[np.float64]:
    """By what inferences that take so many bytes are slower than small ones."""
    doublings = np.log2(np.maximum(activation_bytes, LARGE_BYTES) / LARGE_BYTES)
    return np.asarray(1 + LARGE_MAPS * doublings, np.float64)


def worthwhile(found: Sequence[Predicted]) -> Predicted:
    """The fastest of plans in a rising number of lanes; not one that gains too little for the memory of its engines."""
    best = found[0]
    for other in found[1:]:
        if other.time < best.time * (1 - ABOUT_THE_SAME):
            best = other
    return best


def frugal(found: Sequence[Predicted]) -> Predicted:
    """The fastest, or one that takes about the same time and needs much less memory."""
    best = min(found, key=lambda one: one.time)
    alike = (one for one in found if one.time <= best.time * (1 + ABOUT_THE_SAME))
    least = min(alike, key=lambda one: one.needed_bytes)
    return least if least.needed_bytes <= MUCH_LESS * best.needed_bytes else best
