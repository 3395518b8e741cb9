"""How a result differs from one pass over the whole image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.side_by_side.task import Labels, Scores

NEAR_SEAM_PX = 8
EDGE_PX = 128
"""Wider than the network's halo: differences beyond do not depend on how the image's edges are continued."""
INSIDE = (slice(EDGE_PX, -EDGE_PX), slice(EDGE_PX, -EDGE_PX))


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreError:
    """Largest differences of scores: anywhere, and near seams, away from the image's edges (None: there are none)."""

    largest: float
    at_seams: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelError:
    """Labels that differ: everywhere, and away from the image's edges."""

    all: int
    inside: int


def label_error(labels: Labels, reference: Labels) -> LabelError:
    wrong = labels != reference
    return LabelError(all=int(np.count_nonzero(wrong)), inside=int(np.count_nonzero(wrong[INSIDE])))


def score_error(scores: Scores, reference: Scores, seams_y: list[int], seams_x: list[int]) -> ScoreError:
    """Compare ``scores`` and ``reference`` (C, H, W); seams at the image's own edges do not count."""
    error = np.abs(scores - reference).max(axis=0)
    height, width = error.shape
    near = np.zeros(error.shape, bool)
    for rows in _near(seams_y, height):
        near[rows] = True
    for columns in _near(seams_x, width):
        near[:, columns] = True
    error_inside = error[INSIDE][near[INSIDE]]
    return ScoreError(largest=float(error.max()), at_seams=float(error_inside.max()) if error_inside.size else None)


def _near(seams: list[int], size: int) -> list[slice]:
    return [slice(seam - NEAR_SEAM_PX, seam + NEAR_SEAM_PX) for seam in seams if NEAR_SEAM_PX <= seam < size]
