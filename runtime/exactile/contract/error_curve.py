"""Error against halo, as it was measured on images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from exactile.contract.tolerance import Tolerance


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorPoint:
    """The error with at most ``halo_px`` on every side of a tile, the worst of all images.

    ``scores`` and ``labels`` are relative to exact tiles, as in ``Tolerance``; None if the result has none.
    ``far_scores`` and ``far_labels``: how results change when all pixels farther than ``halo_px`` from a zone are
    permuted; the effective receptive field ends where they vanish.
    """

    halo_px: int
    scores: float | None
    labels: float | None
    far_scores: float | None = None
    far_labels: float | None = None

    def by(self, tolerance: Tolerance) -> float | None:
        return self.scores if tolerance.kind == "scores" else self.labels

    def worst(self, other: ErrorPoint) -> ErrorPoint:
        """Return the larger errors of two images."""
        return ErrorPoint(
            halo_px=self.halo_px,
            scores=_larger(self.scores, other.scores),
            labels=_larger(self.labels, other.labels),
            far_scores=_larger(self.far_scores, other.far_scores),
            far_labels=_larger(self.far_labels, other.far_labels),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveImage:
    """An image of the measurement: its ``size``, (height, width), and its number of ``zones`` and ``pixels``."""

    name: str
    size: tuple[int, int]
    zones: int
    pixels: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorCurve:
    """Halos from 0 to the exact one, whose error is 0 by definition.

    ``belongs_to`` is the SHA-256 of the graphs, ``tile`` the exact tiles' shape, (height, width).
    """

    belongs_to: str
    tile: tuple[int, int]
    seed: int
    images: tuple[CurveImage, ...]
    points: tuple[ErrorPoint, ...]

    def within(self, tolerance: Tolerance, seams: Callable[[int], float]) -> tuple[int, float | None]:
        """Return the smallest halo from which on no error exceeds ``tolerance``, and its error; else the exact halo.

        ``seams`` gives the number of seams of a run with a halo relative to the measurement: labels differ along seams.
        """
        found = self.points[-1].halo_px, self.points[-1].by(tolerance)
        for point in reversed(self.points):
            error = point.by(tolerance)
            if error is not None and error > 0 and tolerance.kind == "labels":
                error *= seams(point.halo_px)
            if error is None or error > tolerance.most:
                break
            found = point.halo_px, error
        return found


def _larger(one: float | None, other: float | None) -> float | None:
    return one if other is None else other if one is None else max(one, other)
