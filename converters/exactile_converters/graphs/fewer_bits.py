"""Graphs whose weights are quantised or in half precision."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper

DEQUANTIZES = "DequantizeLinear"

FLOAT_OF = "exactile_float_of_"
"""Prefix of a weight in single precision; the rest is the name of the same weight in half precision."""


def is_of_fewer_bits(model: ir.Model) -> bool:
    """Return whether weights are quantised or half precision: ONNX Runtime then decides where numbers are rounded."""
    for node in model.graph:
        if node.op_type == DEQUANTIZES and node.inputs[0] is not None and node.inputs[0].producer() is None:
            return True
    return any(
        value.const_value is not None and value.const_value.dtype == ir.DataType.FLOAT16 and value.uses()
        for value in model.graph.initializers.values()
    )


def store_in_half_precision(model: onnx.ModelProto, from_bytes: int) -> None:
    """Store weights of at least ``from_bytes`` that were cast from half precision in half precision again.

    ``model`` computes the same: ONNX Runtime casts them when it opens the graph, before it chooses kernels.
    """
    casts = []
    for tensor in model.graph.initializer:
        if not tensor.name.startswith(FLOAT_OF):
            continue
        array = numpy_helper.to_array(tensor)
        half = array.astype(np.float16)
        if half.nbytes < from_bytes or not np.array_equal(half.astype(array.dtype), array):
            continue
        name, to = tensor.name, tensor.data_type
        tensor.CopyFrom(numpy_helper.from_array(half, name.removeprefix(FLOAT_OF)))
        casts.append(helper.make_node("Cast", [tensor.name], [name], name=f"{name}_node", to=to))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
