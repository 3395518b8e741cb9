"""Lanes on a CPU: engines side by side, each with a share of the threads, on its own bands or tiles.

One engine with all threads waits for the slowest of them after every operator. With several lanes, fewer threads wait
for each other; the price is the halo between bands, and memory for the weights of every engine.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import log2
from typing import TypeVar

from exactile.contract import DeployedModel
from exactile.errors import OptionError, PlanError
from exactile.plan.strips import StripPlan
from exactile.plan.tiles import TilePlan

AnyPlan = TypeVar("AnyPlan", TilePlan, StripPlan, TilePlan | StripPlan)

STRIP_WAITING = 0.14
"""Cost of each doubling of threads for an engine that runs strips, relative to its time without waiting.

Measured on two cores, as the time of two lanes by that of one: 0.81 to 0.98 with U-Nets of 8 to 64 features, median
0.87 on one machine and 0.93 on another. That each further doubling costs as much is an assumption.
"""

TILE_WAITING = 0.12
"""The same for tiles, measured on two cores as well: 0.78 to 0.99, median 0.89."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneChoice:
    """The numbers of lanes that a plan may have, rising."""

    counts: tuple[int, ...] = (1,)

    @classmethod
    def up_to(cls, threads: int) -> LaneChoice:
        """Return 1, 2, 4, ... and one lane for each thread."""
        powers = [1 << power for power in range(threads.bit_length()) if 1 << power <= threads]
        return cls(counts=tuple(dict.fromkeys([*powers, threads])))


def lane_choice(model: DeployedModel, asked: int | None, *, threads: int, on_gpu: bool) -> LaneChoice:
    """Return the numbers of lanes that plans of ``model`` may have, or the number ``asked`` for. Raises OptionError."""
    reason = ""
    if on_gpu:
        reason = "a GPU is one lane, and its plans have no others"
    elif model.contract.obstacles:
        reason = "a network that cannot be tiled exactly runs in one pass"
    elif model.levels or model.reads or model.writes:
        reason = "a network that takes statistics of the whole image runs in one lane"
    elif asked is not None and asked > threads:
        reason = f"each needs a thread, and there are {threads}; raise --threads"
    if reason and asked not in {None, 1}:
        raise OptionError(f"{asked} lanes were requested: {reason}")
    if reason:
        return LaneChoice()
    return LaneChoice.up_to(threads) if asked is None else LaneChoice(counts=(asked,))


def pieces(plan: TilePlan | StripPlan) -> int:
    """Return the number of pieces that can run concurrently: bands, or tiles."""
    return plan.bands if isinstance(plan, StripPlan) else len(plan)


def in_lanes(plan: AnyPlan, lanes: int) -> AnyPlan:
    """Return ``plan`` in so many lanes. Raises PlanError if some would have nothing to do."""
    if lanes > pieces(plan):
        what = "band(s)" if isinstance(plan, StripPlan) else "tile(s)"
        height, width = plan.tile_shape
        raise PlanError(
            f"{lanes} lanes need as many bands or tiles, and a {plan.name} plan of {height} x {width} has "
            f"{pieces(plan)} {what}. What to do: fewer --lanes, or a smaller --tile"
        )
    return replace(plan, lanes=lanes)


def unevenness(plan: TilePlan | StripPlan) -> float:
    """Return the time of the busiest lane, relative to evenly loaded lanes."""
    lanes, count = plan.lanes, pieces(plan)
    return -(-count // lanes) * lanes / count


def less_waiting(waiting: float, lanes: int, threads: int) -> float:
    """Return the time of evenly loaded lanes, relative to that of one lane."""
    return (1 + waiting * log2(max(1, threads // lanes))) / (1 + waiting * log2(threads))
