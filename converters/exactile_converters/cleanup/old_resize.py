"""Keep the positions of Upsample and the first Resize, which had no coordinate modes, where newer defaults differ."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper


def keep_old_resize(model: onnx.ModelProto) -> None:
    """Give every Resize of a ``model`` converted from opset 10 or older the positions that engines used then.

    The converter leaves the attributes out, and their defaults (half_pixel) move the pixels. Positions were
    ``x / scale`` ("asymmetric"); nearest took the pixel below, and along an axis that it reduced, the one above: ONNX
    Runtime still does so. One that does both becomes two nodes, which take the same pixels.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.op_type == "Resize":
            given = constants.get(node.input[2]) if len(node.input) > 2 else None
            scales = numpy_helper.to_array(given) if given is not None else np.ones(0, np.float32)
            _make_asymmetric(node, "ceil" if (scales < 1).any() else "floor")
            if (scales < 1).any() and (scales > 1).any() and node.attribute[0].s == b"nearest":
                nodes.append(_reducing_first(node, scales, model.graph))
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _make_asymmetric(node: onnx.NodeProto, rounding: str) -> None:
    mode = next((attribute.s for attribute in node.attribute if attribute.name == "mode"), b"nearest")
    del node.attribute[:]
    node.attribute.append(helper.make_attribute("mode", mode))
    node.attribute.append(helper.make_attribute("coordinate_transformation_mode", "asymmetric"))
    node.attribute.append(helper.make_attribute("nearest_mode", rounding))


def _reducing_first(node: onnx.NodeProto, scales: NDArray[np.float32], graph: onnx.GraphProto) -> onnx.NodeProto:
    """Return a node before ``node`` that reduces as ``node`` did; ``node`` then only enlarges."""
    first = onnx.NodeProto()
    first.CopyFrom(node)
    name = f"{node.output[0]}_reduced"
    first.name, first.output[0] = name, name
    parts = {f"{name}_scales": np.minimum(scales, 1), f"{node.output[0]}_enlarging_scales": np.maximum(scales, 1)}
    graph.initializer.extend(numpy_helper.from_array(array, key) for key, array in parts.items())
    first.input[2], node.input[2] = parts
    node.input[0] = name
    _make_asymmetric(node, "floor")
    return first
