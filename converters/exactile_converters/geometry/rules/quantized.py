"""Quantised networks: scales and zero points, and convolutions of integers."""

from __future__ import annotations

from exactile_converters.geometry.node_view import NodeView, Operand, is_spatial
from exactile_converters.geometry.obstacle import ObstacleError
from exactile_converters.geometry.registry import Flow, Transfer, rule
from exactile_converters.geometry.rules.convolution import windows
from exactile_converters.geometry.sliding import Kernel


@rule("QuantizeLinear", "DequantizeLinear")
def quantize(node: NodeView) -> Transfer:
    """One scale for all, or one for each channel."""
    node.only_first_is_feature(("scale", "zero point"))
    operand, labels = node.feature()
    axis = operand.axis(node.integer("axis", 1))
    for parameter in node.operands[1:]:
        if parameter is None or parameter.rank == 0 or all(parameter.sizes(d) == (1, 1) for d in range(parameter.rank)):
            continue
        if parameter.rank > 1 or is_spatial(labels[axis]):
            raise ObstacleError("its scale varies along the image", "Quantise by tensor or by channel")
    return Transfer(labels=(labels,), flows=(Flow(operand=0),))


@rule("QLinearConv")
def quantized_convolution(node: NodeView) -> Transfer:
    """A convolution with scales and zero points."""
    node.only_first_is_feature(("scale", "zero point", "weight"))
    return windows(node, _kernel(node, node.operand(3)))


@rule("ConvInteger")
def integer_convolution(node: NodeView) -> Transfer:
    """A convolution of integers, padded by the zero point."""
    node.only_first_is_feature(("weight", "zero point", "weight's zero point"))
    return windows(node, _kernel(node, node.operand(1)))


def _kernel(node: NodeView, weight: Operand | None) -> Kernel:
    if weight is None or weight.small.shape is None:
        raise ObstacleError("its weight has no known shape", "Export with constant weights")
    return Kernel.of(node.node, weight.small.shape[2:])
