"""Operators of maps whose channels come last, as the same between two changes of the order of axes.

They compute with integers, or in an order that the layout does not change: not a bit of the result differs. When it
opens the model, ONNX Runtime moves the channels back to where they were.
"""

from __future__ import annotations

import onnx_ir as ir

from exactile_converters.geometry.sliding import RUNTIME_DOMAIN
from exactile_converters.runtime_operators.writer import Writer

USUAL_AXES = 2


def max_pool(node: ir.Node, write: Writer) -> ir.Value | None:
    return _between(node, write, "MaxPool", "", len(node.attributes.get_ints("kernel_shape", (0,) * USUAL_AXES)))


def convolution(node: ir.Node, write: Writer) -> ir.Value | None:
    """The same convolution is an operator of ONNX, where channels come first."""
    if not node.attributes.get_int("channels_last", 0):
        return write.copy("QLinearConv", node.inputs, _kept(node))
    weight = node.inputs[3].const_value if node.inputs[3] is not None else None
    return _between(node, write, "QLinearConv", "", len(weight.shape) - 2 if weight is not None else USUAL_AXES)


def average_pool(node: ir.Node, write: Writer) -> ir.Value | None:
    if not node.attributes.get_int("channels_last", 0):
        return None
    return _between(node, write, node.op_type, RUNTIME_DOMAIN, len(node.attributes.get_ints("kernel_shape", (0, 0))))


def _between(node: ir.Node, write: Writer, op: str, domain: str, axes: int) -> ir.Value:
    first = write.add("Transpose", node.inputs[0], perm=[0, axes + 1, *range(1, axes + 1)])
    made = write.copy(op, (first, *node.inputs[1:]), _kept(node), domain=domain)
    return write.add("Transpose", made, perm=[0, *range(2, axes + 2), 1])


def _kept(node: ir.Node) -> dict[str, ir.Attr]:
    return {name: attribute for name, attribute in node.attributes.items() if name != "channels_last"}
