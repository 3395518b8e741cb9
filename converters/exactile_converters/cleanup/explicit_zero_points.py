"""Write out zero points that are omitted because they are 0.

Where ONNX Runtime moves an operator in front of DequantizeLinear, it quantises and dequantises again with the same
parameters. Without a zero point it quantises to uint8, and int8 maps lose what is below 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx_ir as ir

ZERO_POINT = 2
DEFAULT = ir.DataType.UINT8


def write_zero_points(nodes: Iterable[ir.Node], dtypes: Mapping[str, int]) -> None:
    """Change ``nodes`` in place; ``dtypes`` are the element types of feature maps, by name."""
    for node in nodes:
        if node.op_type != "DequantizeLinear" or len(node.inputs) < ZERO_POINT:
            continue
        source, scale = node.inputs[:ZERO_POINT]
        left_out = len(node.inputs) == ZERO_POINT or node.inputs[ZERO_POINT] is None
        dtype = ir.DataType(dtypes.get(source.name or "", DEFAULT.value)) if source is not None else DEFAULT
        stored = scale.const_value if scale is not None else None
        if not left_out or dtype == DEFAULT or stored is None or not isinstance(node.graph, ir.Graph):
            continue
        name = f"exactile_zero_point_of_{node.outputs[0].name}"
        array = np.zeros(stored.shape.numpy(), dtype.numpy())
        zero = ir.Value(name=name, const_value=ir.tensor(array, name=name))
        node.graph.register_initializer(zero)
        node.resize_inputs(ZERO_POINT + 1)
        node.replace_input_with(ZERO_POINT, zero)
