"""A case by name: small enough for a list, and the same bytes on every machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

Kind = Literal["tiff", "picture", "czi", "dicom", "contract", "onnx"]
KINDS: tuple[Kind, ...] = get_args(Kind)

TWICE = 0.2
"""Fraction of the drawn cases that are damaged in two ways."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """``mutations`` applied in turn to the base, all with numbers drawn from ``seed``.

    Bases and mutations are meant by name, so a recipe stays the same case when others are added.
    """

    kind: Kind
    base: str
    mutations: tuple[str, ...]
    seed: int

    def random(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)

    def __str__(self) -> str:
        return f"{self.kind}, {self.base}: {', then '.join(self.mutations)} (seed {self.seed})"


def draw(kind: Kind, bases: Sequence[str], mutations: Sequence[str], seed: int) -> Recipe:
    """Return the recipe of ``seed``: any base, one mutation or two."""
    rng = np.random.default_rng(seed)
    count = 1 + (rng.random() < TWICE)
    return Recipe(
        kind=kind,
        base=bases[rng.integers(len(bases))],
        mutations=tuple(mutations[index] for index in rng.integers(len(mutations), size=count)),
        seed=seed,
    )
