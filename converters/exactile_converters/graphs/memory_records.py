"""Translate the traced graph into the records of the memory model."""

from __future__ import annotations

from math import prod

import onnx_ir as ir

from exactile.contract import BytesForShape, MemoryModel
from exactile_converters.geometry.feature_maps import FeatureMap, ImageSizes, walk_forward
from exactile_converters.geometry.node_view import SPATIAL, is_spatial
from exactile_converters.geometry.probe import Memory
from exactile_converters.geometry.sliding import CONVOLUTIONS
from exactile_converters.graphs.io import Wrapped
from exactile_converters.graphs.memory import NodeUse, TensorUse, memory_model

WEIGHTED = {**CONVOLUTIONS, "ConvTranspose": 1}
"""The operand that holds the filter, by operator."""


def wrapped_memory(wrapped: Wrapped, sizes: ImageSizes, memory: Memory | None = None) -> MemoryModel:
    """Return the memory of one inference of a wrapped network; ``sizes`` are image sizes that it accepts.

    ``memory`` is that of probes of the unchanged wrapped graph.
    """
    graph = wrapped.model.graph
    image, result = graph.inputs[0], graph.outputs[0]
    walk = walk_forward(wrapped.model, image, ("y", "x", "c"), wrapped.image.channels, list(graph), sizes, memory)
    return memory_model(
        tensors=[tensor_use(feature) for feature in walk.features.values()],
        nodes=[node_use(node) for node in graph if node in walk.transfers],
        inputs=[image.name or ""],
        outputs=[result.name or ""],
        constant_bytes=sum(value.const_value.nbytes for value in graph.initializers.values() if value.const_value),
    )


def tensor_use(feature: FeatureMap) -> TensorUse:
    """Return the record of a feature map."""
    kind = ir.DataType(feature.dtype)
    others = prod(size for size, label in zip(feature.shape, feature.labels, strict=True) if not is_spatial(label))
    # On a CPU, half precision is computed in single precision: both forms of a map are in memory.
    item_bytes = 6 if kind == ir.DataType.FLOAT16 else max(1, int(kind.itemsize))
    per_pixel = float(others * item_bytes)
    (a, b), (c, d) = ((float(feature.scale[axis]), float(feature.constant[axis])) for axis in SPATIAL)
    # (a*h + b) * (c*w + d) elements
    size = BytesForShape(
        area=per_pixel * a * c, row=per_pixel * a * d, column=per_pixel * b * c, constant=per_pixel * b * d
    )
    blocked = kind == ir.DataType.FLOAT and feature.labels == ("n", "c", "y", "x")
    return TensorUse(name=feature.name, bytes=size, channels=feature.shape[1] if blocked else 0, item_bytes=item_bytes)


def node_use(node: ir.Node) -> NodeUse:
    """Return the record of a node."""
    place = WEIGHTED.get(node.op_type, len(node.inputs))
    weight = node.inputs[place] if place < len(node.inputs) else None
    shape = weight.const_value.shape if weight is not None and weight.const_value is not None else ()
    return NodeUse(
        op=node.op_type,
        inputs=tuple(value.name or "" for value in node.inputs if value is not None),
        outputs=tuple(value.name or "" for value in node.outputs),
        weight_shape=tuple(int(str(dim)) for dim in shape),
        attributes={
            name: attribute.value for name, attribute in node.attributes.items() if isinstance(attribute, ir.Attr)
        },
    )
