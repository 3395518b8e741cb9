"""Which combinations are run: each pair of choices occurs in one at least."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import combinations, product

import numpy as np

from benchmarks.memory_matrix.inputs import SOURCES

AXES: dict[str, tuple[str, ...]] = {
    "network": ("ONNX", "bundle", "wider bundle"),
    "source": tuple(SOURCES),
    "sink": ("tif", "ome.tif", "zarr", "npy"),
    "plan": ("auto", "whole", "tile", "strip"),
    "option": ("none", "raw", "pictures", "resume", "statistics", "many", "background", "reflect", "stream"),
}
TRIED = 60
"""Combinations to choose from, for each that is taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A combination: one choice of each axis."""

    network: str
    source: str
    sink: str
    plan: str
    option: str

    @property
    def possible(self) -> bool:
        """Whether there is such a run."""
        if self.option == "stream":
            return self.plan == "strip" and self.source == "npy" and self.network != "ONNX"
        if self.option == "resume" and self.sink == "npy":
            return False
        return self.option != "background" or self.plan in ("auto", "tile")

    @property
    def pairs(self) -> set[tuple[tuple[str, str], ...]]:
        return set(combinations(asdict(self).items(), 2))


def covering(seed: int = 0) -> Iterator[Case]:
    """Yield combinations that hold every pair of choices that can occur; greedy, and the same for the same seed."""
    possible = [
        case for choice in product(*AXES.values()) if (case := Case(**dict(zip(AXES, choice, strict=True)))).possible
    ]
    missing = set().union(*(case.pairs for case in possible))
    random = np.random.default_rng(seed)
    while missing:
        wanted = min(missing)
        fitting = [case for case in possible if wanted in case.pairs]
        tried = [fitting[i] for i in random.integers(len(fitting), size=TRIED)]
        best = max(tried, key=lambda case: len(case.pairs & missing))
        missing -= best.pairs
        yield best
