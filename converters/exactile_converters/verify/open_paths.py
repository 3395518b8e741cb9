"""Copy a network so that no influence can vanish or cancel.

Weights become positive averages; biases of convolutions and batch normalisation 0; saturating activations are removed.
Only values change, never which pixels an operator reads: what reaches an output here can reach it with some weights.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from exactile_converters.networks.network import Network

Array = NDArray[Any]

SATURATING = {"Sigmoid", "HardSigmoid", "Tanh", "Softsign", "Softmax", "LogSoftmax", "Clip"}
QUANTIZING = {"QuantizeLinear", "DequantizeLinear"}
NORMALIZING = {"BatchNormalization": (1.0, 0.0, 0.0, 1.0)}
"""Values of scale, bias, mean and variance that pass everything."""


def open_all_paths(network: Network) -> None:
    """Change ``network`` in place: positive weights of sum 1, for values of any magnitude."""
    graph = network.model.graph
    for node in list(graph):
        if holds_back(node):
            bypass(node)
        elif node.op_type in NORMALIZING:
            for value, fill in zip(node.inputs[1:5], NORMALIZING[node.op_type], strict=True):
                _change(graph, value, partial(np.full_like, fill_value=fill))
        elif node.op_type in {"Conv", "ConvTranspose", "Gemm"}:
            _open_weights(graph, node)
        elif node.op_type in {"MatMul", "FusedMatMul", "Einsum"}:
            _open_product(graph, node)
        elif node.op_type in {"Mul", "Div", "PRelu"}:
            for value in node.inputs:
                _change(graph, value, _positive)


def holds_back(node: ir.Node) -> bool:
    """Return whether the operator limits large values."""
    if node.op_type in QUANTIZING:
        return not is_constant(node.inputs[0])
    if node.op_type == "Min":
        return any(map(is_constant, node.inputs))
    return node.op_type in SATURATING


def _open_weights(graph: ir.Graph, node: ir.Node) -> None:
    axes = {"Conv": (1, 2, 3), "ConvTranspose": (0, 2, 3), "Gemm": (0,)}[node.op_type]
    if node.op_type == "Gemm" and node.attributes.get_int("transB", False):
        axes = (1,)
    _change(graph, node.inputs[1], lambda array: _averaging(array, axes))
    if len(node.inputs) > 2:
        _change(graph, node.inputs[2], np.zeros_like)


def _open_product(graph: ir.Graph, node: ir.Node) -> None:
    for index, value in enumerate(node.inputs):
        axes = (-2 if index else -1,)
        _change(graph, value, lambda array, axes=axes: _averaging(array, axes))  # type: ignore[misc]


def _averaging(array: Array, axes: tuple[int, ...]) -> Array:
    """Return positive weights of sum 1 over ``axes``, so that values neither explode nor vanish."""
    axes = tuple(axis for axis in axes if -array.ndim <= axis < array.ndim)
    weights = np.nan_to_num(np.abs(array.astype(np.float64)), posinf=1.0)
    weights += max(float(weights.mean()), 1e-6)
    return np.asarray(weights / weights.sum(axis=axes, keepdims=True))


def _positive(array: Array) -> Array:
    values = np.abs(array)
    return np.where(values == 0, np.ones_like(values), values)


def is_constant(value: ir.Value | None) -> bool:
    """Return whether ``value`` is an initialiser or a constant."""
    return value is not None and value.const_value is not None


def bypass(node: ir.Node) -> None:
    """Connect readers of the node's output to its (first not constant) input instead."""
    source = next((value for value in node.inputs if value is not None and not is_constant(value)), None)
    if source is not None and not node.outputs[0].is_graph_output():
        node.outputs[0].replace_all_uses_with(source)


def _change(graph: ir.Graph, value: ir.Value | None, change: Callable[[Array], Array]) -> None:
    """Apply ``change`` to a floating-point or dequantised constant."""
    if value is None:
        return
    producer = value.producer()
    if producer is not None and producer.op_type == "DequantizeLinear" and is_constant(producer.inputs[0]):
        stored = producer.inputs[0]
        array = np.asarray(stored.const_value.numpy(), np.float32) if stored and stored.const_value else None
        if array is not None:
            opened = ir.Value(name=f"{value.name}_opened", const_value=ir.tensor(change(array).astype(np.float32)))
            graph.register_initializer(opened)
            value.replace_all_uses_with(opened)
        return
    if value.const_value is None:
        return
    array = value.const_value.numpy()
    if array.dtype.kind == "f":
        value.const_value = ir.tensor(change(array).astype(array.dtype), name=value.name)
