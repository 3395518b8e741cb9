"""Times of inferences on a CPU: by rules for all machines, or as measured on this one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from exactile.contract.tuning import PlanKind, TunedShape
from exactile.plan.lanes import STRIP_WAITING, TILE_WAITING, less_waiting

LARGE_BYTES = 512 << 20
LARGE_MAPS = 0.06
"""Cost of each doubling of an inference's memory beyond ``LARGE_BYTES``, relative to its time, once touched.

Measured with U-Nets of 8, 16 and 32 features on two cores, one pass of 2048 x 2048 pixels beside strips of it.
"""

AT_HAND_BYTES = 16 << 20
"""Bytes of memory that a process has touched before, whatever it runs."""

TILE_OVERHEAD_PX = 64 * 64
"""Fixed cost of a tile or strip (reading, a call of the engine, writing), in computed pixels."""

WAITING: Mapping[PlanKind, float] = {"tile": TILE_WAITING, "strip": STRIP_WAITING}


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Times of inferences with ``threads``: relative ones, of which the fastest is about 1.

    ``points`` were measured; between them times follow the logarithm of the memory, and beyond the largest the rules.
    Without points for a kind of plan and number of lanes, the rules hold, in the unit of what was measured.

    An engine also touches its memory for the first time, which takes ``touching`` for each byte, relative to the best
    time of a pixel of the image; 0 if it is not known, or the memory was touched before.
    """

    threads: int = 1
    points: tuple[TunedShape, ...] = ()
    touching: float = 0.0
    _curves: dict[tuple[PlanKind, int], tuple[NDArray[np.float64], NDArray[np.float64]]] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )
    _scale: float = field(init=False, repr=False, compare=False, default=1.0)

    def __post_init__(self) -> None:
        if not self.points:
            return
        fastest = min(point.seconds_per_pixel for point in self.points)
        found: dict[tuple[PlanKind, int], dict[int, float]] = {}
        for point in self.points:
            found.setdefault((point.kind, point.lanes), {})[point.activation_bytes] = point.seconds_per_pixel / fastest
        for key, curve in found.items():
            sizes = sorted(curve)
            self._curves[key] = np.log2(sizes), np.array([curve[size] for size in sizes])
        by_rule = [
            point.seconds_per_pixel / fastest / float(self._by_rule(point.kind, point.lanes, point.activation_bytes))
            for point in self.points
        ]
        object.__setattr__(self, "_scale", float(np.median(by_rule)))

    def of(self, kind: PlanKind, lanes: int, activation_bytes: ArrayLike) -> NDArray[np.float64]:
        """Return the time of inferences in ``lanes`` that take so many bytes together."""
        curve = self._curves.get((kind, lanes))
        if curve is None:
            return self._scale * self._by_rule(kind, lanes, activation_bytes)
        sizes = np.log2(np.maximum(activation_bytes, 1))
        beyond = slowed(activation_bytes) / slowed(np.exp2(np.clip(sizes, curve[0][0], curve[0][-1])))
        return np.interp(sizes, *curve) * beyond

    def once(self, activation_bytes: ArrayLike) -> NDArray[np.float64]:
        """Return the pixels that could be computed in the time of touching the memory of all lanes for
        the first time.
        """
        return np.maximum(np.asarray(activation_bytes, np.float64) - AT_HAND_BYTES, 0) * self.touching

    def least(self, kind: PlanKind, lanes: int) -> float:
        """Return a lower bound of the time of an inference."""
        curve = self._curves.get((kind, lanes))
        return float(self.of(kind, lanes, 0)) if curve is None else float(curve[1].min())

    def _by_rule(self, kind: PlanKind, lanes: int, activation_bytes: ArrayLike) -> NDArray[np.float64]:
        return slowed(activation_bytes) * less_waiting(WAITING[kind], lanes, self.threads)


USUAL = Speed()
"""By the rules, with one thread."""


def slowed(activation_bytes: ArrayLike) -> NDArray[np.float64]:
    """Return how much slower inferences with so many bytes are than small ones."""
    doublings = np.log2(np.maximum(activation_bytes, LARGE_BYTES) / LARGE_BYTES)
    return np.asarray(1 + LARGE_MAPS * doublings, np.float64)
