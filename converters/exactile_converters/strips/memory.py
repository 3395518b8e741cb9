"""Memory of one run of a strip graph, by the same model as a whole network's."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
import onnx
from onnx import ModelProto, helper

from exactile.contract import BytesForShape, Carry, MemoryModel, StripRole
from exactile.contract.kept_map import KeptMap
from exactile_converters.graphs.memory import NodeUse, TensorUse, memory_model
from exactile_converters.graphs.memory_records import WEIGHTED
from exactile_converters.strips.shapes import Shapes
from exactile_converters.strips.source import StripSource

STRIDES_HIGH = (64, 128)
"""Heights at which shapes are inferred, in strides, and the remainder more for the last strip; far above any start-up
height."""


def strip_memory(model: ModelProto, source: StripSource, carries: Sequence[Carry], role: StripRole) -> MemoryModel:
    """Return the memory of one run. Raises StripError when a shape is not known before it runs."""
    beyond = source.frontiers.remainder if role == "last" else 0
    return graph_memory(model, _heights(source, role), (source.sizes.small[1], source.sizes.large[1]), carries, beyond)


def graph_memory(
    model: ModelProto,
    heights: tuple[int, int],
    widths: tuple[int, int],
    carries: Sequence[Carry] = (),
    beyond: int = 0,
    kept: Sequence[KeptMap] = (),
) -> MemoryModel:
    """Return the memory of one run of a finished graph, from shapes at these ``heights`` and ``widths``.

    ``beyond`` is the excess of heights over multiples of the stride; ``kept`` are maps that it reads.

    Raises StripError when a shape is not known before it runs.
    """
    known = Shapes(model, carries, beyond, kept)
    shapes = {(height, width): known.at(height, width) for height in heights for width in widths}
    corner = shapes[heights[0], widths[0]]
    tensors = []
    for name, (dtype, shape) in corner.items():
        itemsize = _item_bytes(dtype)
        size = _bytes_for(itemsize, heights, widths, {at: found[name][1] for at, found in shapes.items()})
        blocked = dtype == onnx.TensorProto.FLOAT and len(shape) == 4
        channels = shape[1] if blocked else 0
        tensors.append(TensorUse(name=name, bytes=size, channels=channels, item_bytes=itemsize))
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    return memory_model(
        tensors=tensors,
        nodes=[_node_use(node, weights) for node in model.graph.node if set(node.output) & set(corner)],
        inputs=[value.name for value in model.graph.input],
        outputs=[value.name for value in model.graph.output],
        constant_bytes=sum(_tensor_bytes(tensor) for tensor in weights.values()),
    )


def _heights(source: StripSource, role: StripRole) -> tuple[int, int]:
    frontiers = source.frontiers
    remainder = frontiers.remainder if role == "last" else 0
    least = -(-max(map(abs, frontiers.lag.values())) * 4 // frontiers.stride)
    first, second = (frontiers.stride * (least + strides) + remainder for strides in STRIDES_HIGH)
    return first, second


def _item_bytes(dtype: int) -> int:
    """Return the bytes of an element; in half precision, of both forms that it has on a CPU."""
    return 6 if dtype == onnx.TensorProto.FLOAT16 else np.dtype(helper.tensor_dtype_to_np_dtype(dtype)).itemsize


def _bytes_for(
    itemsize: int,
    heights: tuple[int, int],
    widths: tuple[int, int],
    shapes: dict[tuple[int, int], tuple[int, ...]],
) -> BytesForShape:
    """Return the size as a function of height and width, from four of its values."""
    (h, k), (w, v) = heights, widths
    count = {at: prod(shape) * itemsize for at, shape in shapes.items()}
    area = (count[k, v] - count[k, w] - count[h, v] + count[h, w]) / ((k - h) * (v - w))
    row = (count[k, w] - count[h, w]) / (k - h) - area * w
    column = (count[h, v] - count[h, w]) / (v - w) - area * h
    return BytesForShape(area, row, column, count[h, w] - area * h * w - row * h - column * w)


def _node_use(node: onnx.NodeProto, weights: dict[str, onnx.TensorProto]) -> NodeUse:
    weight = weights.get(node.input[WEIGHTED[node.op_type]]) if node.op_type in WEIGHTED else None
    return NodeUse(
        op=node.op_type,
        inputs=tuple(name for name in node.input if name),
        outputs=tuple(node.output),
        weight_shape=tuple(weight.dims) if weight is not None else (),
        attributes={attribute.name: _attribute(attribute) for attribute in node.attribute},
    )


def _attribute(attribute: onnx.AttributeProto) -> object:
    value = helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode()
    return tuple(value) if isinstance(value, list) else value


def _tensor_bytes(tensor: onnx.TensorProto) -> int:
    return int(prod(tensor.dims)) * np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type)).itemsize
