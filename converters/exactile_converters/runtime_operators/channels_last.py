"""Rewrite operators on channels-last maps as the same operators between two transpositions.

They compute with integers, or in an order that does not depend on the layout: the result is bit-identical. When it
opens the model, ONNX Runtime moves the channels back.
"""

from __future__ import annotations

import onnx_ir as ir

from exactile_converters.geometry.sliding import RUNTIME_DOMAIN
from exactile_converters.runtime_operators.writer import Writer

USUAL_AXES = 2


def max_pool(node: ir.Node, write: Writer) -> ir.Value | None:
    """Rewrite NhwcMaxPool."""
    return _between(node, write, "MaxPool", "", len(node.attributes.get_ints("kernel_shape", (0,) * USUAL_AXES)))


def convolution(node: ir.Node, write: Writer) -> ir.Value | None:
    """Rewrite as the same ONNX convolution with channels first."""
    if not node.attributes.get_int("channels_last", 0):
        return write.copy("QLinearConv", node.inputs, _kept(node))
    weight = node.inputs[3].const_value if node.inputs[3] is not None else None
    return _between(node, write, "QLinearConv", "", len(weight.shape) - 2 if weight is not None else USUAL_AXES)


def average_pool(node: ir.Node, write: Writer) -> ir.Value | None:
    """Rewrite an average pooling with channels last."""
    if not node.attributes.get_int("channels_last", 0):
        return None
    return _between(node, write, node.op_type, RUNTIME_DOMAIN, len(node.attributes.get_ints("kernel_shape", (0, 0))))


def _between(node: ir.Node, write: Writer, op: str, domain: str, axes: int) -> ir.Value:
    first = write.add("Transpose", node.inputs[0], perm=[0, axes + 1, *range(1, axes + 1)])
    made = write.copy(op, (first, *node.inputs[1:]), _kept(node), domain=domain)
    return write.add("Transpose", made, perm=[0, *range(2, axes + 2), 1])


def _kept(node: ir.Node) -> dict[str, ir.Attr]:
    return {name: attribute for name, attribute in node.attributes.items() if name != "channels_last"}
