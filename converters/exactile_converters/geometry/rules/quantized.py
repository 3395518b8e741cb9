"""Quantised networks: scales and zero points, and integer operators.

An integer operator on quantised maps moves pixels as the operator of the same name does: the same rule applies to the
operands that are maps. Scales and zero points stand between them.
"""

from __future__ import annotations

from dataclasses import replace

from exactile_converters.geometry.node_view import NodeView, Operand, is_spatial
from exactile_converters.geometry.obstacle import ObstacleError
from exactile_converters.geometry.registry import Flow, Rule, Transfer, rule
from exactile_converters.geometry.rules.channels import concat, softmax
from exactile_converters.geometry.rules.convolution import windows
from exactile_converters.geometry.rules.pixelwise import broadcasting, unary
from exactile_converters.geometry.rules.pooling import pooling
from exactile_converters.geometry.rules.products import matmul
from exactile_converters.geometry.sliding import RUNTIME_DOMAIN, Kernel

CONSTANT_SCALES = "Quantise with constant scales and zero points"
FIRST_OPSET_OF_SOFTMAX_OVER_ONE_AXIS = 13


@rule("QuantizeLinear", "DequantizeLinear")
@rule("QuantizeLinear", "DequantizeLinear", domain=RUNTIME_DOMAIN)
def quantize(node: NodeView) -> Transfer:
    """Quantise with one scale for all, or one for each channel."""
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
    """Convolve with scales and zero points."""
    node.only_first_is_feature(("scale", "zero point", "weight"))
    return windows(node, _kernel(node, node.operand(3)))


@rule("ConvInteger")
def integer_convolution(node: NodeView) -> Transfer:
    """Convolve integers, padded by the zero point."""
    node.only_first_is_feature(("weight", "zero point", "weight's zero point"))
    return windows(node, _kernel(node, node.operand(1)))


def _kernel(node: NodeView, weight: Operand | None) -> Kernel:
    if weight is None or weight.small.shape is None:
        raise ObstacleError("its weight has no known shape", "Export with constant weights")
    return Kernel.of(node.node, weight.small.shape[2:])


@rule("QLinearAdd", "QLinearMul", domain=RUNTIME_DOMAIN)
def quantized_binary(node: NodeView) -> Transfer:
    """Combine two operands pixel by pixel."""
    return _of_maps(node, (0, 3), broadcasting)


@rule("QLinearWhere", domain=RUNTIME_DOMAIN)
def quantized_choice(node: NodeView) -> Transfer:
    """Choose by a condition between two operands."""
    return _of_maps(node, (0, 1, 4), broadcasting)


@rule("QLinearLeakyRelu", "QLinearSigmoid", domain=RUNTIME_DOMAIN)
def quantized_activation(node: NodeView) -> Transfer:
    """Handle pixelwise activations."""
    return _of_maps(node, (0,), unary)


@rule("QLinearSoftmax", domain=RUNTIME_DOMAIN)
def quantized_softmax(node: NodeView) -> Transfer:
    """Normalise over the axes that Softmax has in the opset that the node names."""
    return _of_maps(replace(node, opset=node.integer("opset", FIRST_OPSET_OF_SOFTMAX_OVER_ONE_AXIS)), (0,), softmax)


@rule("QLinearConcat", domain=RUNTIME_DOMAIN)
def quantized_concat(node: NodeView) -> Transfer:
    """Concatenate maps: each is followed by a scale and a zero point, after those of the result."""
    places = tuple(range(2, len(node.operands), 3))
    if any(operand is None or not operand.is_feature for operand in (node.operand(place) for place in places)):
        raise ObstacleError("it concatenates a constant map", "Concatenate maps that are computed from the image")
    return _of_maps(node, places, concat)


@rule("QLinearAveragePool", domain=RUNTIME_DOMAIN)
def quantized_pooling(node: NodeView) -> Transfer:
    """Pool over windows like AveragePool."""
    return _of_maps(node, (0,), pooling)


@rule("QLinearMatMul")
def quantized_matmul(node: NodeView) -> Transfer:
    """Multiply over channels; the second operand is the fourth input."""
    for place in (1, 2, 6, 7):
        parameter = node.operand(place)
        if parameter is not None and any(parameter.sizes(dim) != (1, 1) for dim in range(parameter.rank)):
            raise ObstacleError("its scale varies along rows", "Quantise by tensor or by column")
    return _of_maps(node, (0, 3), matmul)


def _of_maps(node: NodeView, places: tuple[int, ...], known: Rule) -> Transfer:
    """Return what ``known`` returns for the operands at ``places``; all others must be constants."""
    if any(index not in places for index, _, _ in node.features):
        raise ObstacleError("its scale or zero point is computed from the image", CONSTANT_SCALES)
    found = known(replace(node, operands=tuple(node.operand(place) for place in places)))
    return replace(found, flows=tuple(replace(flow, operand=places[flow.operand]) for flow in found.flows))
