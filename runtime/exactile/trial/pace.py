"""Measure the rate of a plan's steps, once its engines are open and their memory was touched."""

from __future__ import annotations

from collections.abc import Sequence

from exactile.pipeline.timing import INFER, TimeSpan
from exactile.plan.prediction import Plan
from exactile.plan.strips import StripPlan, StripStep
from exactile.plan.tiles import Step

MEASURED_S = 0.2
"""Steps are counted for at least this long: clocks and threads are not steadier."""

COUNTED_STEPS = 2
"""At least this many steps, for each lane."""


class Pace:
    """Collects the times of inferences, and says when there are enough. Used by one thread.

    The first step of tiles, and of strips all up to the first body strip, open graphs and touch memory for the first
    time: they are left out. So is the last strip, whose graph is a third one.
    """

    def __init__(self, lanes: int = 1) -> None:
        self._lanes = lanes
        self._usual: list[tuple[float, int]] = []

    def tell(self, span: TimeSpan, steps: Sequence[Step]) -> None:
        """Count a piece of work that was done for ``steps``, in the order of the plan."""
        if span.work != INFER:
            return
        for step in steps:
            if not isinstance(step, StripStep) or step.place.role == "body":
                self._usual.append((span.end_s, step.tile.area))

    @property
    def enough(self) -> bool:
        counted = sorted(self._usual)[self._lanes - 1 :]
        return len(counted) > COUNTED_STEPS * self._lanes and counted[-1][0] - counted[0][0] >= MEASURED_S

    @property
    def pixel_s(self) -> float | None:
        """Seconds for each computed pixel; None if too few steps were counted."""
        counted = sorted(self._usual)[self._lanes - 1 :]
        if len(counted) <= self._lanes:
            return None
        return (counted[-1][0] - counted[0][0]) / sum(area for _, area in counted[1:])


def prefix_pixels(plan: Plan, lanes: int = 1) -> int:
    """Return the pixels that are computed until there is enough, unless steps are so short that more of them are
    counted.
    """
    height, width = plan.tile_shape
    counted = (1 + COUNTED_STEPS) * lanes * height * width
    return counted + (plan.y.heights[0] * width * plan.bands if isinstance(plan, StripPlan) else 0)
