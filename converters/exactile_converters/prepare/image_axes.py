"""Infer the dimensions of an image input from the first convolution after it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from exactile_converters.geometry.sliding import CONVOLUTIONS

KERNELS = {**CONVOLUTIONS, "ConvTranspose": 1}
"""The operand that holds the weight, by operator."""

PASSED = {
    "Add", "BatchNormalization", "Cast", "DequantizeLinear", "Div", "Identity", "Mul", "Pad", "QuantizeLinear", "Relu",
    "Sub",
}  # fmt: skip
"""Operators that may precede the first convolution and keep the order of dimensions."""

UNBATCHED, BATCHED = 3, 4

Order = tuple[int | None, ...]
"""For each dimension of a value, the image's dimension; None for one that was added."""


def first_convolution(image: ir.Value, rank: int = BATCHED) -> tuple[int, int] | None:
    """Return (channel axis of the image, channels); None where no convolution over two axes is found."""
    seen: set[ir.Value] = set()
    queue: list[tuple[ir.Value, Order]] = [(image, tuple(range(rank)))]
    while queue:
        value, order = queue.pop(0)
        if value in seen:
            continue
        seen.add(value)
        for node, index in value.uses():
            if node.op_type in KERNELS and index == 0:
                return _channels(node, order)
            moved = _moved(node, order)
            if moved is not None:
                queue.append((node.outputs[0], moved))
    return None


def _channels(node: ir.Node, order: Order) -> tuple[int, int] | None:
    weight = node.inputs[KERNELS[node.op_type]]
    if weight is None or weight.shape is None or len(weight.shape) != BATCHED or len(order) != BATCHED:
        return None
    transposed = node.op_type == "ConvTranspose"
    channels, axis = weight.shape[0 if transposed else 1], order[1]
    groups = 1 if transposed else node.attributes.get_int("group", 1)
    return (axis, int(channels) * groups) if isinstance(channels, int) and axis is not None else None


def _moved(node: ir.Node, order: Order) -> Order | None:
    """Return the dimensions of the result of ``node``; None for an operator that is not followed."""
    if node.op_type in PASSED:
        return order
    if node.op_type == "Transpose":
        return tuple(order[i] for i in node.attributes.get_ints("perm", tuple(reversed(range(len(order))))))
    if node.op_type in {"Squeeze", "Unsqueeze"} and (axes := _axes(node)) is not None:
        if node.op_type == "Squeeze":
            gone = {axis % len(order) for axis in axes}
            return tuple(dim for place, dim in enumerate(order) if place not in gone)
        added, left = {axis % (len(order) + len(axes)) for axis in axes}, list(order)
        return tuple(None if place in added else left.pop(0) for place in range(len(order) + len(axes)))
    return None


def _axes(node: ir.Node) -> Sequence[int] | None:
    given = node.inputs[1] if len(node.inputs) > 1 else None
    stored = given.const_value if given is not None else None
    return [int(axis) for axis in stored.numpy().reshape(-1)] if stored is not None else None


def give_batch(model: ir.Model) -> None:
    """Give image inputs without a batch dimension, (C, H, W) or (H, W, C), a leading one, which is removed at once."""
    for place, value in enumerate(list(model.graph.inputs)):
        if value.shape is None or len(value.shape) != UNBATCHED or first_convolution(value, UNBATCHED) is None:
            continue
        name = value.name or ""
        image = ir.Value(name=name, shape=ir.Shape([1, *value.shape]), type=value.type)
        alone, batch = f"exactile_{name}_alone", f"exactile_{name}_batch"
        value.name = f"{alone}_before"
        axes = ir.Value(name=batch, const_value=ir.tensor(np.array([0], np.int64), name=batch))
        model.graph.register_initializer(axes)
        squeeze = ir.node("Squeeze", [image, axes], name=alone)
        model.graph.insert_before(model.graph[0], squeeze)
        model.graph.inputs[place] = image
        value.replace_all_uses_with(squeeze.outputs[0])
        squeeze.outputs[0].name = alone
