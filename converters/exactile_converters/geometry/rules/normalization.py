"""Normalisations by statistics computed over some axes."""

from __future__ import annotations

from exactile_converters.geometry.node_view import NodeView, is_spatial, is_whole
from exactile_converters.geometry.obstacle import ObstacleError, StatisticError
from exactile_converters.geometry.registry import Flow, Transfer, rule

REMEDY = "Train with batch normalisation (frozen at inference), or normalise over channels only"


@rule("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization")
def layer_normalization(node: NodeView) -> Transfer:
    """Normalise over the last axes, which must be channels."""
    node.only_first_is_feature(("scale", "bias"))
    operand, labels = node.feature()
    first = operand.axis(node.integer("axis", -1))
    _check(node, tuple(range(first, operand.rank)))
    for parameter in node.operands[1:]:
        if parameter is not None and parameter.rank > operand.rank - first:
            raise ObstacleError("its scale or bias varies along the image", REMEDY)
    return Transfer(labels=(labels,) * len(node.node.outputs), flows=(Flow(operand=0),))


@rule("MeanVarianceNormalization")
def mean_variance_normalization(node: NodeView) -> Transfer:
    """Normalise over any axes but those of the image."""
    operand, labels = node.feature()
    _check(node, tuple(operand.axis(axis) for axis in node.integers("axes", (0, 2, 3))))
    return Transfer(labels=(labels,), flows=(Flow(operand=0),))


@rule("LpNormalization")
def lp_normalization(node: NodeView) -> Transfer:
    """Normalise over one axis."""
    operand, labels = node.feature()
    _check(node, (operand.axis(node.integer("axis", -1)),))
    return Transfer(labels=(labels,), flows=(Flow(operand=0),))


def _check(node: NodeView, axes: tuple[int, ...]) -> None:
    _, labels = node.feature()
    over = [labels[axis] for axis in axes if is_spatial(labels[axis])]
    if over:
        raise (StatisticError if is_whole(over) else ObstacleError)(
            f"it normalises by statistics over {' and '.join(over)}, of the whole image", REMEDY
        )
