"""How much memory one run of a strip graph needs, by the same model as a whole network's."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
import onnx
import onnx_ir as ir
from onnx import ModelProto, helper, numpy_helper, shape_inference

from exactile.contract import POSITION, BytesForShape, Carry, MemoryModel, StripRole
from exactile_converters.geometry.probe import Probe
from exactile_converters.graphs.memory import NodeUse, TensorUse, memory_model
from exactile_converters.graphs.memory_records import WEIGHTED
from exactile_converters.strips.refusal import StripError
from exactile_converters.strips.source import StripSource

STRIDES_HIGH = (64, 128)
"""Heights at which shapes are looked at, in strides, and for the last strip the remainder more; far above any start-up
height."""


def strip_memory(model: ModelProto, source: StripSource, carries: Sequence[Carry], role: StripRole) -> MemoryModel:
    """Memory of one run. Raises StripError when a shape is not known before it runs."""
    return graph_memory(model, _heights(source, role), (source.sizes.small[1], source.sizes.large[1]), carries)


def graph_memory(
    model: ModelProto, heights: tuple[int, int], widths: tuple[int, int], carries: Sequence[Carry] = ()
) -> MemoryModel:
    """Memory of one run of a finished graph, of which shapes are looked at for these ``heights`` and ``widths``.

    Raises StripError when one is not known before it runs.
    """
    shapes = {(height, width): _shapes(model, height, width, carries) for height in heights for width in widths}
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


def _shapes(
    model: ModelProto, height: int, width: int, carries: Sequence[Carry]
) -> dict[str, tuple[int, tuple[int, ...]]]:
    """Element type and shape of everything that is computed from the image, for strips of one size."""
    fixed = ModelProto()
    fixed.CopyFrom(model)
    placed = told_position(fixed, height, width)
    named = {"height": height, "width": width} | {c.width_name: c.columns_at(width) for c in carries}
    for value in fixed.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in named:
                dim.dim_value = named[dim.dim_param]
    for value in fixed.graph.output:
        value.type.tensor_type.ClearField("shape")
    inferred = shape_inference.infer_shapes(fixed, data_prop=True).graph
    found: dict[str, tuple[int, tuple[int, ...]]] = {}
    for value in [*inferred.input, *inferred.value_info, *inferred.output]:
        dims = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(dim.HasField("dim_value") for dim in dims):
            found[value.name] = value.type.tensor_type.elem_type, tuple(dim.dim_value for dim in dims)
    if placed or any(name not in found for node in fixed.graph.node for name in node.output if name):
        return _computed_shapes(fixed)  # slower, and knows more of shape arithmetic, and operators that ONNX does not
    return found


def told_position(model: ModelProto, height: int, width: int) -> bool:
    """Give a graph with placed operators a place far down in an image as a constant, where it asks for it.

    Shapes do not depend on it; without it they would not be known. Returns whether the graph asks.
    """
    asking = [value for value in model.graph.input if value.name == POSITION]
    for value in asking:
        model.graph.input.remove(value)
        place = np.array([height, 2 * height, 0, width], np.int64)
        model.graph.initializer.append(numpy_helper.from_array(place, POSITION))
    return bool(asking)


def _computed_shapes(fixed: ModelProto) -> dict[str, tuple[int, tuple[int, ...]]]:
    """The same by computing all shape arithmetic, for a graph whose inputs have fixed shapes."""
    image, *others = [
        (value.name, tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)) for value in fixed.graph.input
    ]
    model = ir.from_proto(fixed)
    probe = Probe(model, *image, others=dict(others))
    constants = {tensor.name for tensor in fixed.graph.initializer}
    found = {}
    for value in [*fixed.graph.input, *(output for node in model.graph for output in node.outputs)]:
        name = value.name or ""
        fact = probe.facts.get(name)
        if fact is None or fact.shape is None:
            raise StripError(f"the shape of {name} is not known before it runs")
        if name not in constants:
            found[name] = fact.dtype, fact.shape
    return found


def _item_bytes(dtype: int) -> int:
    """Bytes of an element; in half precision of both forms that it has on a CPU."""
    return 6 if dtype == onnx.TensorProto.FLOAT16 else np.dtype(helper.tensor_dtype_to_np_dtype(dtype)).itemsize


def _bytes_for(
    itemsize: int,
    heights: tuple[int, int],
    widths: tuple[int, int],
    shapes: dict[tuple[int, int], tuple[int, ...]],
) -> BytesForShape:
    """The size as a function of height and width, from four of its values."""
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
