"""Remove from strip graphs what only ONNX Runtime needs and a GPU does not."""

from __future__ import annotations

import onnx
from onnx import numpy_helper


def without_layout_nodes(model: onnx.ModelProto) -> None:
    """Replace nodes that change only ONNX Runtime's memory layout by Identity, in place.

    These are pooling over one pixel, and multiplying each channel by one; see ``exactile_converters.strips.chunks``.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if _pools_one_pixel(node) or _multiplies_by_one(node, constants):
            node.op_type = "Identity"
            del node.input[1:]
            del node.attribute[:]


def _pools_one_pixel(node: onnx.NodeProto) -> bool:
    attributes = {attribute.name: attribute for attribute in node.attribute}
    return (
        node.op_type == "MaxPool"
        and set(attributes) == {"kernel_shape"}
        and set(attributes["kernel_shape"].ints) == {1}
        and len(node.output) == 1
    )


def _multiplies_by_one(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> bool:
    attributes = {attribute.name: attribute for attribute in node.attribute}
    if node.op_type != "Conv" or set(attributes) != {"group"} or len(node.input) != 2:
        return False
    weight = constants.get(node.input[1])
    if weight is None or list(weight.dims) != [attributes["group"].i, 1, 1, 1]:
        return False
    return bool((numpy_helper.to_array(weight) == 1).all())
