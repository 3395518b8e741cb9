"""Memory of one pass over an image of one size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod

import onnx_ir as ir

from exactile.contract import BytesForShape, MemoryModel
from exactile_converters.geometry.fact import Fact
from exactile_converters.geometry.feature_maps import image_shape
from exactile_converters.geometry.probe import SMALL_VALUE_ELEMENTS
from exactile_converters.graphs.io import Wrapped
from exactile_converters.graphs.memory import NodeUse, TensorUse, memory_model
from exactile_converters.graphs.memory_records import node_use
from exactile_converters.one_pass.refusal import OnePassError
from exactile_converters.one_pass.scratch import scratch_bytes
from exactile_converters.one_pass.shapes import first_unknown, node_label, shapes_at

AS_ANY = ""
"""Operator name that makes the memory model treat a node as one without special knowledge."""


def one_pass_memory(wrapped: Wrapped, size: tuple[int, int]) -> MemoryModel:
    """Return the memory of one inference of a wrapped network over an image of ``size``, (height, width).

    Raises OnePassError where it cannot be computed.
    """
    graph = wrapped.model.graph
    image, result = graph.inputs[0], graph.outputs[0]
    nodes = list(graph)
    shape = image_shape(("y", "x", "c"), wrapped.image.channels, size)
    probe = shapes_at(wrapped.model, image, shape, nodes)
    unknown = first_unknown(probe, nodes)
    if unknown is not None:
        raise OnePassError(f"what {node_label(unknown[0])} gives has a shape that is not known before it runs")
    shaped = {name: fact for name, fact in probe.facts.items() if fact.shape is not None and name}
    tensors = {image.name or "": _tensor(image.name or "", shaped[image.name or ""], size)}
    uses = []
    for node in nodes:
        made = [value.name for value in node.outputs if value.name and _counts(shaped.get(value.name))]
        if not made:
            continue
        tensors.update({name: _tensor(name, shaped[name], size) for name in made})
        uses.append(_node(node, tensors, shaped, size))
    return memory_model(
        tensors=list(tensors.values()),
        nodes=uses,
        inputs=[image.name or ""],
        outputs=[result.name or ""],
        constant_bytes=sum(value.const_value.nbytes for value in graph.initializers.values() if value.const_value),
        shapes=[size],
    )


def _counts(fact: Fact | None) -> bool:
    """Return whether this is a tensor; numbers that follow from the image's size alone are not."""
    if fact is None or fact.shape is None:
        return False
    return fact.value is None or prod(fact.shape) > SMALL_VALUE_ELEMENTS


def _tensor(name: str, fact: Fact, size: tuple[int, int]) -> TensorUse:
    shape, kind = fact.shape or (), ir.DataType(fact.dtype)
    # On a CPU, half precision is computed in single precision: both forms of a map are in memory.
    total = prod(shape) * (6 if kind == ir.DataType.FLOAT16 else kind.itemsize)
    blocked = kind == ir.DataType.FLOAT and len(shape) == 4
    return TensorUse(name=name, bytes=_at(total, size), channels=shape[1] if blocked else 0)


def _node(node: ir.Node, tensors: Mapping[str, TensorUse], facts: Mapping[str, Fact], size: tuple[int, int]) -> NodeUse:
    scratch = scratch_bytes(node, facts)
    if scratch is None:
        raise OnePassError(f"the memory that {node_label(node)} of domain {node.domain!r} takes is not known")
    use = replace(node_use(node), scratch=_at(scratch, size))
    source = node.inputs[0] if node.inputs else None
    known = source is not None and source.name in tensors
    return use if known else replace(use, op=AS_ANY)


def _at(total: float, size: tuple[int, int]) -> BytesForShape:
    return BytesForShape(total / (size[0] * size[1]))
