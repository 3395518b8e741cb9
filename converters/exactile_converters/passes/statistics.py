"""A statistic in the words of the contract."""

from __future__ import annotations

import onnx_ir as ir

from exactile.passes.statistic import Statistic
from exactile_converters.geometry.trace import Traced
from exactile_converters.passes.reductions import Reduction


def statistic_of(reduction: Reduction, traced: Traced) -> Statistic:
    """What ``reduction`` of a traced network asks for."""
    feature = traced.features[reduction.of.name or ""]
    return Statistic(
        kind=reduction.kind,
        channels=feature.shape[reduction.labels.index("c")] if "c" in reduction.labels else 1,
        groups=reduction.groups,
        inputs=tuple(value.name or "" for value in reduction.placeholders),
        shapes=tuple(_shape(value) for value in reduction.placeholders),
    )


def _shape(placeholder: ir.Value) -> tuple[int, ...]:
    assert placeholder.const_value is not None
    return tuple(int(str(dim)) for dim in placeholder.const_value.shape)
