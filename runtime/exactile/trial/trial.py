"""Choose the plan of a long run by timing the best candidates on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from exactile.errors import EngineError
from exactile.plan.choice import Choice
from exactile.plan.prediction import Predicted, frugal, predicted_passes
from exactile.trial.candidates import Candidate, Candidates, shape_of
from exactile.trial.pace import prefix_pixels

LEAST_PIXELS = 16_000_000
"""Runs over smaller images are not tried: opening engines alone would take a noticeable share of them."""

LONG_S = 20.0
"""Shorter runs keep the predicted plan, once that was timed."""

SHARE = 0.05
"""Fraction of the run's computed pixels, for all trials together; opening engines comes on top."""

PaceOf = Callable[[Candidate], float | None]
"""Seconds for each computed pixel, where the plan has enough steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """A plan, and the seconds of the whole run extrapolated from its first steps."""

    candidate: Candidate
    seconds: float

    @property
    def text(self) -> str:
        plan = self.candidate.predicted.plan
        height, width = shape_of(plan)
        return f"{plan.name} {height}x{width} {self.seconds:.0f} s"


def choose_by_trial(
    choice: Choice, candidates: Candidates, pace_of: PaceOf, *, clock: Callable[[], float] = time.perf_counter
) -> Choice:
    """Return ``choice``, or what is measured to be faster, and why; or why nothing was tried.

    All trials together take at most ``SHARE`` of the run.
    """
    plan = choice.plan
    if plan.wanted_pixels < LEAST_PIXELS:
        return untried(choice, f"the image has fewer than {LEAST_PIXELS / 1e6:.0f} million pixels")
    tried: list[Tried] = []
    left, begin = SHARE * plan.computed_pixels, clock()
    for candidate in candidates.beside(plan):
        cost = prefix_pixels(candidate.plan)
        late = bool(tried) and clock() - begin > SHARE / 2 * tried[0].seconds
        if cost <= left and not late:
            left -= cost
            tried += _tried(candidate, pace_of, first=not tried)
        if not tried:
            break
        if tried[0].seconds < LONG_S:
            return untried(choice, f"the run takes about {tried[0].seconds:.0f} s")
    if not tried:
        return untried(choice, "too few steps, or too little memory, to time the predicted plan beside others")
    return _fastest(choice, tried) if len(tried) > 1 else untried(choice, "no other plan within its share of the run")


def untried(choice: Choice, why: str) -> Choice:
    """Return ``choice``, whose reason says why no other plan was tried, although that was requested."""
    return replace(choice, reason=f"{choice.reason}; no trial: {why}")


def _tried(candidate: Candidate, pace_of: PaceOf, *, first: bool) -> list[Tried]:
    """Try a candidate; leave out a plan that fails. Raises EngineError if the predicted plan does: the run would fail,
    too.
    """
    try:
        pixel_s = pace_of(candidate)
    except EngineError:
        if first:
            raise
        return []
    if pixel_s is None:
        return []
    return [Tried(candidate=candidate, seconds=pixel_s * candidate.predicted.plan.computed_pixels)]


def _fastest(choice: Choice, tried: list[Tried]) -> Choice:
    found = [
        Predicted(
            plan=one.candidate.predicted.plan, time=one.seconds, needed_bytes=one.candidate.predicted.needed_bytes
        )
        for one in tried
    ]
    plan = frugal(found).plan
    texts = {id(one.candidate.predicted.plan): one.text for one in tried}
    others = ", ".join(text for key, text in texts.items() if key != id(plan))
    reason = f"measured on the first steps: {texts[id(plan)]} ({others}); before that, {choice.plan.name} was "
    return replace(choice, plan=plan, passes=predicted_passes(plan), reason=reason + choice.reason)
