"""Copy a network with integer weights, so that an influence shows as a one among zeros, without rounding.

All weights become 1, all biases 0, and each sum is clipped to 0 or 1 before the next layer. For an image of zeros, all
maps are then zero; a one in it yields ones wherever it reaches: nothing cancels, and the largest sum is the number of
taps of one filter, which float32 holds exactly at any depth. Only values change, never which pixels an operator reads.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from exactile_converters.networks.network import Network
from exactile_converters.verify.open_paths import bypass, holds_back, is_constant

ADDING = {"Add", "Sub", "Mul", "Div", "Sum", "Mean"}
"""These read the same pixels of their operands as an addition, which replaces them."""

LARGEST = {"Min", "Max"}

WEIGHTED = {"Conv", "ConvTranspose", "FusedMatMul", "Gemm", "MatMul", "Einsum"}

SUMMING = {
    *WEIGHTED,
    *("AveragePool", "LpPool", "MaxUnpool", "Resize", "ReduceMean", "ReduceSum", "ReduceL1", "ReduceL2"),
}
"""Their results are clipped to 0 or 1."""

POINTWISE = {
    *("BatchNormalization", "Cos", "Cosh", "Erf", "Exp", "Gelu", "HardSwish", "LRN", "LayerNormalization", "Log"),
    *("LpNormalization", "Mish", "Neg", "Pow", "Reciprocal", "Selu", "Sin", "Sinh", "Softplus", "Sqrt", "Swish"),
    *("Tan", "ThresholdedRelu", "BiasGelu", "FastGelu", "QuickGelu", "SimplifiedLayerNormalization"),
}
"""Removed: pixelwise operators that produce non-integers, hide a one, or turn a zero into something else."""

UNTOUCHED = {"Shape", "Size"}


def set_integer_weights(network: Network) -> None:
    """Change ``network`` in place."""
    graph = network.model.graph
    from_image = _from_image(network)
    for node in list(graph):
        if node.op_type not in UNTOUCHED and any(value in from_image for value in node.inputs):
            _simplify(node, from_image)
    for node in list(graph):
        if node.op_type in SUMMING and node.outputs[0] in from_image:
            _cut(node)


def _simplify(node: ir.Node, from_image: set[ir.Value | None]) -> None:
    if node.op_type in POINTWISE or holds_back(node):
        bypass(node)
    elif node.op_type in ADDING | LARGEST:
        _join(node, from_image)
    elif node.op_type in WEIGHTED:
        for index, value in enumerate(node.inputs):
            if value is not None and value not in from_image:
                _fill(node, index, 0.0 if index == 2 and node.op_type != "Einsum" else 1.0)
    elif node.op_type == "MaxUnpool":
        _spread(node)


def _from_image(network: Network) -> set[ir.Value | None]:
    """Return the values computed from the image's pixels (not only from its size)."""
    found: set[ir.Value | None] = {network.image}
    for node in network.model.graph:
        if node.op_type not in UNTOUCHED and any(value in found for value in node.inputs):
            found.update(node.outputs)
    return found


def _join(node: ir.Node, from_image: set[ir.Value | None]) -> None:
    """Add the operands from the image (or take the larger one, for a minimum); constants no longer count."""
    if len(node.inputs) > 1:
        node.op_type = "Max" if node.op_type in LARGEST else "Sum" if node.op_type in {"Sum", "Mean"} else "Add"
        for index, value in enumerate(node.inputs):
            if value is not None and value not in from_image:
                _fill(node, index, 0.0)


def _fill(node: ir.Node, index: int, number: float) -> None:
    """Fill operand ``index``, a constant or computed from constants, with ``number``."""
    graph, value = node.graph, node.inputs[index]
    if graph is None or value is None:
        return
    name = f"{node.outputs[0].name}_integers_{index}"
    if is_constant(value) and value.const_value is not None:
        filled = np.full_like(value.const_value.numpy(), number)
        made = ir.Value(name=name, const_value=ir.tensor(filled, name=name))
        graph.register_initializer(made)
    else:  # whatever its shape: its difference from itself, and, for ones, the exponential of that
        steps = [ir.node("Sub", [value, value], name=name)]
        if number:
            steps.append(ir.node("Exp", [steps[0].outputs[0]], name=f"{name}_exp"))
        for step in steps:
            step.outputs[0].name = step.name
        graph.insert_before(node, steps)
        made = steps[-1].outputs[0]
    node.replace_input_with(index, made)


def _spread(node: ir.Node) -> None:
    """Spread a value over all of its window: MaxUnpool may put it at any pixel of the window."""
    graph = node.graph
    if graph is None:
        return
    name = f"{node.outputs[0].name}_scales"
    factors = np.array([1, 1, *node.attributes.get_ints("strides", ())], np.float32)
    scales = ir.Value(name=name, const_value=ir.tensor(factors, name=name))
    graph.register_initializer(scales)
    options = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    wider = ir.node("Resize", [node.inputs[0], None, scales], attributes=options, name=name)
    wider.outputs[0].name = f"{name}_spread"
    graph.insert_before(node, wider)
    node.outputs[0].replace_all_uses_with(wider.outputs[0], replace_graph_outputs=True)


def _cut(node: ir.Node) -> None:
    """Replace the node's output by its sign, 0 or 1, for its readers; the graph's own outputs are unchanged."""
    graph, output = node.graph, node.outputs[0]
    uses = tuple(output.uses())
    if graph is None or not uses:
        return
    sign = ir.node("Sign", [output], name=f"{output.name}_sign")
    sign.outputs[0].name = f"{output.name}_sign"
    graph.insert_after(node, sign)
    for reader, index in uses:
        reader.replace_input_with(index, sign.outputs[0])
