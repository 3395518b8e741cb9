"""A statistic in the words of the contract."""

from __future__ import annotations

from exactile.passes.statistic import Statistic
from exactile_converters.geometry.trace import Traced
from exactile_converters.passes.reductions import Reduction, shape_of


def statistic_of(reduction: Reduction, traced: Traced) -> Statistic:
    """What ``reduction`` of a traced network asks for."""
    feature = traced.features[reduction.of.name or ""]
    return Statistic(
        kind=reduction.kind,
        channels=feature.shape[reduction.labels.index("c")] if "c" in reduction.labels else 1,
        groups=reduction.groups,
        inputs=tuple(value.name or "" for value in reduction.placeholders),
        shapes=tuple(shape_of(value) for value in reduction.placeholders),
    )
