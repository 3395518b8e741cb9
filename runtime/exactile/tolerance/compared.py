"""Tiles with a smaller halo beside the exact ones of the same zones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.plan.tiles import Step
from exactile.tolerance.narrow import NarrowPlan
from exactile.tolerance.tile_runs import TileRuns

HELD_BYTES = 16 << 20
"""Bytes of results that wait for the exact ones: only one engine is open at a time."""


def compared(
    narrow: NarrowPlan, runs: TileRuns, steps: Sequence[Step]
) -> Iterator[tuple[Step, NDArray[Any], NDArray[Any]]]:
    """Yield each of ``steps`` of ``narrow.plan``, the exact result of its zone, and that with the smaller halo.

    Raises BudgetError, SourceError, EngineError.
    """
    result, (height, width) = runs.model.contract.result, narrow.plan.tile_output_shape
    zone_bytes = height * width * max(1, result.channels) * np.dtype(result.dtype).itemsize
    together = max(1, HELD_BYTES // zone_bytes)
    for first in range(0, len(steps), together):
        part = steps[first : first + together]
        others = list(runs.results(narrow.plan, part))
        exact = runs.results(narrow.exact, [narrow.exact_step(step) for step in part])
        for step, other, right in zip(part, others, exact, strict=True):
            yield step, right, other
