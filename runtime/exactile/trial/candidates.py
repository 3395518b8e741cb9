"""Choose the plans worth trying: those that are predicted to be nearly the fastest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from exactile.errors import PlanError
from exactile.plan.budget import MemoryNeed
from exactile.plan.prediction import Plan, Predicted, predicted
from exactile.plan.strips import StripPlan
from exactile.planning import Planner, Wish
from exactile.sinks.nothing import NoSink
from exactile.sinks.protocol import Sink
from exactile.sources.protocol import Source
from exactile.trial.corner import Corner

TILES_PX = (512, 1024)
STRIP_ROWS = (128, 256, 512)
WORTH_TRYING = 1.4
"""Plans with a longer predicted time, relative to the fastest, are not tried: predictions have not been so wrong."""

MOST_TRIED = 4
WIDEST_PX = 4096
"""Wider strips are tried on this many columns: the time per pixel hardly changes any more, and the trial is short."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A plan that fits, its predicted time in passes, and its substitute in a trial: ``plan`` on ``source``."""

    predicted: Predicted
    plan: Plan
    need: MemoryNeed
    source: Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """Plans for ``source`` that leave ``margin_bytes`` of the budget: earlier engines leave something behind."""

    planner: Planner
    source: Source
    sink: Sink
    wish: Wish
    margin_bytes: int

    def beside(self, chosen: Plan) -> list[Candidate]:
        """Return ``chosen`` first, if it can be tried, then the best plan of the other kind, then others by predicted
        time.
        """
        plans: dict[tuple[str, tuple[int, int], int], Plan] = {}
        for plan in (chosen, *self._plans()):
            if len(plan) > 1:
                plans.setdefault((plan.name, shape_of(plan), plan.lanes), plan)
        found = [candidate for plan in plans.values() if (candidate := self._candidate(plan)) is not None]
        first = [one for one in found if one.predicted.plan is chosen]
        if not first:
            return []
        most = first[0].predicted.time * WORTH_TRYING
        others = [one for one in found if one is not first[0] and one.predicted.time <= most]
        others.sort(key=lambda one: one.predicted.time)
        other_kind = next((one for one in others if one.plan.name != chosen.name), None)
        others.sort(key=lambda one: one is not other_kind)
        return [*first, *others][:MOST_TRIED]

    def _plans(self) -> Iterator[Plan]:
        wishes = [replace(self.wish, plan="tile"), replace(self.wish, plan="strip")]
        counts = self.planner.lane_choice(self.wish).counts
        wishes += [replace(self.wish, plan="strip", lanes=count) for count in counts if len(counts) > 1]
        wishes += [replace(self.wish, plan="tile", tile=(side, side)) for side in TILES_PX]
        wishes += [replace(self.wish, plan="strip", tile=(rows, self.source.width)) for rows in STRIP_ROWS]
        for wish in wishes:
            with suppress(PlanError):
                yield self.planner.choose(self.source, self.sink, wish).plan

    def _candidate(self, plan: Plan) -> Candidate | None:
        need = self.planner.memory_need(plan, self.source, self.sink, apart_bytes=self.wish.apart_bytes)
        if need.needed_bytes + self.margin_bytes > self.planner.budget_bytes:
            return None
        guess = predicted(
            plan,
            activation_bytes=need.activation_bytes,
            needed_bytes=need.needed_bytes,
            speed=self.planner.speed((self.source.height, self.source.width)),
        )
        if not isinstance(plan, StripPlan) or plan.x.tile <= WIDEST_PX or plan.lanes > 1:
            return Candidate(predicted=guess, plan=plan, need=need, source=self.source)
        corner = Corner(self.source, WIDEST_PX)
        wish = replace(self.wish, plan="strip", tile=(plan.rows, WIDEST_PX))
        try:
            narrow = self.planner.choose(corner, NoSink(), wish).plan
        except PlanError:
            return None
        return Candidate(
            predicted=guess, plan=narrow, need=self.planner.memory_need(narrow, corner, NoSink()), source=corner
        )


def shape_of(plan: Plan) -> tuple[int, int]:
    """Return the shape as in --tile: (height, width), or strip rows and band width."""
    return (plan.rows, plan.x.tile) if isinstance(plan, StripPlan) else plan.tile_shape
