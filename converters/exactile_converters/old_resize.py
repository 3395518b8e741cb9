"""Upsample and the first Resize had no coordinate modes; newer ones have another default."""

from __future__ import annotations

import onnx
from onnx import helper, numpy_helper


def keep_old_resize(model: onnx.ModelProto) -> None:
    """Give every Resize of a ``model`` converted from opset 10 or older the positions that engines used then.

    The converter leaves the attributes out, and their defaults (half_pixel) move the pixels. Positions were
    ``x / scale`` ("asymmetric"); nearest took the pixel below, and where it reduced, the one above: ONNX Runtime still
    does so.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
    for node in model.graph.node:
        if node.op_type != "Resize":
            continue
        scales = constants.get(node.input[2]) if len(node.input) > 2 else None
        reduces = scales is not None and bool((numpy_helper.to_array(scales) < 1).any())
        kept = [attribute for attribute in node.attribute if attribute.name == "mode"]
        del node.attribute[:]
        node.attribute.extend(kept)
        node.attribute.append(helper.make_attribute("coordinate_transformation_mode", "asymmetric"))
        node.attribute.append(helper.make_attribute("nearest_mode", "ceil" if reduces else "floor"))
