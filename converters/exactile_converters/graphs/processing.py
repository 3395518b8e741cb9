"""Add pixelwise steps before and after a network to its graph: clip, scale, threshold, sigmoid, softmax."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import onnx_ir as ir

from exactile.errors import ModelError
from exactile_converters.networks.network import Network

Operator = Literal["Add", "Sub", "Mul", "Div", "Clip", "Greater", "Sigmoid", "Softmax"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelStep:
    """One operator. ``values`` is one number, or one for each channel; for Clip it is (smallest, largest)."""

    op: Operator
    values: tuple[float, ...] = ()


def before_network(network: Network, steps: Sequence[PixelStep]) -> None:
    """Apply ``steps``, in order, to samples before the network. Changes ``network`` in place."""
    image, graph = network.image, network.model.graph
    uses = [(node, index) for node, index in image.uses()]
    axis = network.labels.index("c")
    value = image
    nodes: list[ir.Node] = []
    for number, step in enumerate(steps):
        made = _nodes(graph, value, step, f"exactile_before_{number}", axis=axis, rank=4, channels=network.channels)
        nodes += made
        value = made[-1].outputs[0]
    for node, index in uses:
        node.replace_input_with(index, value)
    graph.extend(nodes)
    graph.sort()


def after_network(network: Network, steps: Sequence[PixelStep], *, axis: int, rank: int, channels: int) -> Network:
    """Apply ``steps``, in order, to the network's result, whose ``axis`` of ``rank`` holds the ``channels``."""
    graph, value = network.model.graph, network.result
    position = list(graph.outputs).index(value) if value in list(graph.outputs) else None
    for number, step in enumerate(steps):
        made = _nodes(graph, value, step, f"exactile_after_{number}", axis=axis, rank=rank, channels=channels)
        graph.extend(made)
        value = made[-1].outputs[0]
    if position is not None:
        graph.outputs[position] = value
    return replace(network, result=value)


def _nodes(
    graph: ir.Graph, value: ir.Value, step: PixelStep, name: str, *, axis: int, rank: int, channels: int
) -> list[ir.Node]:
    def constant(values: Sequence[float], suffix: str, shape: tuple[int, ...]) -> ir.Value:
        array = np.array(values, np.float32).reshape(shape)
        made = ir.Value(name=f"{name}_{suffix}", const_value=ir.tensor(array, name=f"{name}_{suffix}"))
        graph.register_initializer(made)
        return made

    inputs: list[ir.Value] = [value]
    if step.op == "Clip":
        inputs += [constant([bound], f"bound_{index}", ()) for index, bound in enumerate(step.values)]
    elif step.values:
        if len(step.values) not in (1, channels):
            raise ModelError(f"{len(step.values)} values are given for {channels} channel(s)")
        shape = tuple(len(step.values) if dim == axis else 1 for dim in range(rank))
        inputs.append(constant(step.values, "values", shape))
    attributes = {"axis": axis} if step.op == "Softmax" else {}
    nodes = [ir.node(step.op, inputs, attributes=attributes, name=name)]
    if step.op == "Greater":
        nodes.append(ir.node("Cast", [nodes[0].outputs[0]], attributes={"to": 1}, name=f"{name}_cast"))
    for index, node in enumerate(nodes):
        node.outputs[0].name = f"{name}_{index}"
    nodes[-1].outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    return nodes
