"""Measure how much of the time of copies was hidden behind the network: from events on the GPU's three streams."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from exactile.pipeline.timing import INFER, TimeSpan

Interval = tuple[float, float]
STREAMS = {"copy in": "copies in", INFER: "inferences", "copy out": "copies out"}
"""The work of each stream, for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """Seconds of one GPU from the first copy in to the last copy out.

    ``busy_s`` is by work; ``hidden_s`` is the part of the copies' time in which the network worked too.
    """

    wall_s: float
    busy_s: dict[str, float]
    copies_s: float
    hidden_s: float
    loads: int

    @property
    def bottleneck(self) -> str:
        return max(self.busy_s, key=lambda work: self.busy_s[work])

    @property
    def busy_share(self) -> float:
        """Fraction of the time in which the busiest stream works."""
        return self.busy_s[self.bottleneck] / max(self.wall_s, 1e-12)

    @property
    def hidden_share(self) -> float:
        return self.hidden_s / max(self.copies_s, 1e-12)


def overlap_of(spans: Iterable[TimeSpan]) -> Overlap | None:
    """Return the overlap of the spans of one GPU's streams; None if there are none."""
    by_work: dict[str, list[Interval]] = {work: [] for work in STREAMS}
    for span in spans:
        if span.track.startswith("cuda:") and span.work in by_work:
            by_work[span.work].append((span.begin_s, span.end_s))
    if not all(by_work.values()):
        return None
    everything = [interval for intervals in by_work.values() for interval in intervals]
    copies = united([*by_work["copy in"], *by_work["copy out"]])
    return Overlap(
        wall_s=max(end for _, end in everything) - min(begin for begin, _ in everything),
        busy_s={work: length(united(intervals)) for work, intervals in by_work.items()},
        copies_s=length(copies),
        hidden_s=length(common(copies, united(by_work[INFER]))),
        loads=len(by_work[INFER]),
    )


def united(intervals: Iterable[Interval]) -> list[Interval]:
    """Merge intervals into disjoint ones, in order."""
    found: list[Interval] = []
    for begin, end in sorted(intervals):
        if found and begin <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((begin, end))
    return found


def common(first: Sequence[Interval], second: Sequence[Interval]) -> list[Interval]:
    """Intersect two lists of intervals; each is disjoint and in order."""
    found = [(max(a, c), min(b, d)) for a, b in first for c, d in second]
    return [(begin, end) for begin, end in found if begin < end]


def length(intervals: Iterable[Interval]) -> float:
    return sum(end - begin for begin, end in intervals)
