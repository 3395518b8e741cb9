"""Rewrite a quantised network in floating point: only values change, never which pixels an operator reads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from exactile_converters.networks.network import Network
from exactile_converters.verify.open_paths import QUANTIZING, is_constant

SMALL = {ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT16, ir.DataType.UINT16}


@dataclass(frozen=True, slots=True)
class Twin:
    """The floating-point operator, and the positions of its operands, each followed by its scale and zero point."""

    op: str
    places: tuple[int, ...]
    plain: tuple[int, ...] = ()


TWINS = {
    "QLinearAdd": Twin("Add", (0, 3)),
    "QLinearAveragePool": Twin("AveragePool", (0,)),
    "QLinearConv": Twin("Conv", (0, 3)),
    "QLinearLeakyRelu": Twin("LeakyRelu", (0,)),
    "QLinearMatMul": Twin("MatMul", (0, 3)),
    "QLinearMul": Twin("Mul", (0, 3)),
    "QLinearSigmoid": Twin("Sigmoid", (0,)),
    "QLinearSoftmax": Twin("Softmax", (0,)),
    "QLinearWhere": Twin("Where", (1, 4), plain=(0,)),
}
OWN_ATTRIBUTES = {"channels_last", "opset"}
CASTS = {"Cast", "CastLike"}


def dequantize(network: Network) -> None:
    """Change ``network`` in place. Biases of convolutions are dropped."""
    graph = network.model.graph
    for node in list(graph):
        if node.op_type in QUANTIZING and not is_constant(node.inputs[0]):
            _replace(node, "Identity", [node.inputs[0]])
        elif node.op_type == "QLinearConcat":
            _replace(node, "Concat", [_operand(node, place) for place in range(2, len(node.inputs), 3)])
        elif (twin := TWINS.get(node.op_type)) is not None:
            operands = [_operand(node, place) for place in twin.places]
            _replace(node, twin.op, [*(node.inputs[place] for place in twin.plain), *operands])
    for node in graph:
        for value in node.outputs:
            if value.dtype in SMALL and node.op_type not in CASTS:
                value.type = ir.TensorType(ir.DataType.FLOAT)


def _operand(node: ir.Node, place: int) -> ir.Value | None:
    value = node.inputs[place]
    stored = value.const_value if value is not None else None
    if stored is None or node.graph is None:
        return value
    scale, zero = (_number(node.inputs[place + step]) for step in (1, 2))
    per_channel = (-1, *(1,) * (len(stored.shape) - 1)) if scale.size > 1 and node.op_type == "QLinearConv" else (-1,)
    name = f"{node.outputs[0].name}_operand_{place}"
    array = (stored.numpy().astype(np.float32) - zero.reshape(per_channel if zero.size > 1 else ())) * scale.reshape(
        per_channel if scale.size > 1 else ()
    )
    made = ir.Value(name=name, const_value=ir.tensor(array.astype(np.float32), name=name))
    node.graph.register_initializer(made)
    return made


def _number(value: ir.Value | None) -> NDArray[np.float32]:
    stored = value.const_value if value is not None else None
    return stored.numpy().astype(np.float32) if stored is not None else np.zeros((), np.float32)


def _replace(node: ir.Node, op: str, operands: list[ir.Value | None]) -> None:
    kept = [] if op == "Identity" else [a for name, a in node.attributes.items() if name not in OWN_ATTRIBUTES]
    made = ir.Node("", op, operands, kept, name=node.name)
    old = node.outputs[0]
    if node.graph is None:
        return
    node.graph.insert_before(node, made)
    old.replace_all_uses_with(made.outputs[0], replace_graph_outputs=True)
    made.outputs[0].name, old.name = old.name, f"{old.name}_quantised"
    made.outputs[0].type, made.outputs[0].shape = old.type, old.shape
    node.graph.remove(node, safe=True)
