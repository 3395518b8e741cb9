"""Multiply an output in the graph by the number by which a tool multiplies it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

if TYPE_CHECKING:
    from exactile_converters.networks.network import Network

NAME = "exactile_output_factor"


def scale_output(network: Network, factor: float) -> Network:
    """Return ``network`` with its result times ``factor``, in the result's type; the graph is changed in place."""
    if factor == 1.0:
        return network
    graph, result = network.model.graph, network.result
    kind = result.dtype or ir.DataType.FLOAT
    constant = ir.Value(name=f"{NAME}_value", const_value=ir.tensor(np.array(factor, kind.numpy())))
    graph.register_initializer(constant)
    node = ir.node("Mul", [result, constant], name=NAME)
    made = node.outputs[0]
    made.name, made.type, made.shape = NAME, ir.TensorType(kind), result.shape
    graph.append(node)
    graph.outputs[list(graph.outputs).index(result)] = made
    return replace(network, result=made)
