"""Ways of doing the same thing take turns, so that a noisy machine disturbs all of them."""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

Seconds = Mapping[str, Sequence[float]]
"""For each way, its seconds in every round."""


def in_turn(
    ways: Mapping[str, Callable[[], object]], rounds: int, *, warm_up: int = 0, say: str = ""
) -> dict[str, list[float]]:
    """Run A B C, A B C, ... ``rounds`` times, after ``warm_up`` rounds that do not count.

    A way that returns a float has timed itself, without what is no part of it; else the call is timed.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(warm_up + rounds):
        for name, way in ways.items():
            gc.collect()
            begin = time.perf_counter()
            own = way()
            taken = own if isinstance(own, float) else time.perf_counter() - begin
            if turn >= warm_up:
                seconds[name].append(taken)
                if say:
                    print(f"{say}, round {turn - warm_up + 1} of {rounds}: {name}: {taken:.2f} s", file=sys.stderr)
    return seconds


def floor_of(seconds: Seconds, names: Iterable[str]) -> list[float]:
    """Return the fastest of ``names`` in every round."""
    chosen = [seconds[name] for name in names]
    return [min(times) for times in zip(*chosen, strict=True)]


def ratios(taken: Sequence[float], floor: Sequence[float]) -> list[float]:
    """Divide by the floor of the same round."""
    return [one / other for one, other in zip(taken, floor, strict=True)]


def median_ratio(taken: Sequence[float], floor: Sequence[float]) -> float:
    return statistics.median(ratios(taken, floor))


def spread(values: Sequence[float]) -> str:
    """Return the least and the greatest: how far a median can be trusted."""
    return f"{min(values):.2f} to {max(values):.2f}"
