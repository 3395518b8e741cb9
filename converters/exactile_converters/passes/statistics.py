"""Express a statistic in the contract's terms."""

from __future__ import annotations

from math import prod

from exactile.contract.statistic import Statistic
from exactile_converters.geometry.trace import Traced
from exactile_converters.passes.reductions import Reduction
from exactile_converters.passes.taking import shape_of


def statistic_of(reduction: Reduction, traced: Traced) -> Statistic:
    """Return the statistic that ``reduction`` of a traced network needs."""
    feature = traced.features[reduction.of.name or ""]
    return Statistic(
        kind=reduction.kind,
        channels=prod(size for size, label in zip(feature.shape, feature.labels, strict=True) if label == "c"),
        groups=reduction.groups,
        inputs=tuple(value.name or "" for value in reduction.placeholders),
        shapes=tuple(shape_of(value) for value in reduction.placeholders),
        grid=reduction.grid,
    )
