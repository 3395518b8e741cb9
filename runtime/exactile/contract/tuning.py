"""Measurements of a network on a machine, by which plans are chosen there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PlanKind = Literal["tile", "strip"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TunedShape:
    """The speed of inferences of tiles, or strips, of one ``shape``, in so many ``lanes``.

    ``shape`` is (height, width), or strip rows and band width. ``activation_bytes`` are those of all lanes together,
    ``seconds_per_pixel`` those of each pixel that one pass over the image would compute.
    """

    kind: PlanKind
    shape: tuple[int, int]
    lanes: int
    activation_bytes: int
    seconds_per_pixel: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """Measured with the model whose graphs have the SHA-256 ``belongs_to``, on ``machine`` with ``threads``."""

    belongs_to: str
    machine: str
    threads: int
    shapes: tuple[TunedShape, ...]

    def holds(self, machine: str, threads: int) -> bool:
        """Return whether it applies to runs on ``machine`` with ``threads``."""
        return (self.machine, self.threads) == (machine, threads)
