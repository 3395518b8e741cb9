"""Shapes of everything that a finished graph computes, at several sizes of strip or tile."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
import onnx_ir as ir
from onnx import ModelProto, TensorProto, helper, shape_inference

from exactile.contract import POSITION, Carry
from exactile.contract.kept_map import KeptMap
from exactile_converters.geometry.fact import Fact
from exactile_converters.geometry.probe import SMALL_VALUE_ELEMENTS, Memory, Probe
from exactile_converters.strips.refusal import StripError

Found = dict[str, tuple[int, tuple[int, ...]]]
"""Element type and shape, by name."""


class Shapes:
    """Shapes of ``model``, whose weights are ignored; ``carries`` are those of a strip graph, ``kept`` the maps it
    reads.

    ``beyond`` is the excess of heights over multiples of the stride.
    """

    def __init__(self, model: ModelProto, carries: Sequence[Carry], beyond: int, kept: Sequence[KeptMap] = ()) -> None:
        self._carries, self._beyond, self._kept = carries, beyond, kept
        self._light, weights = _without_weights(model)
        self._constants = weights | {tensor.name for tensor in self._light.graph.initializer}
        self._placed = any(value.name == POSITION for value in model.graph.input)
        self._computed: ir.Model | None = None
        self._memory: Memory = {}

    def at(self, height: int, width: int) -> Found:
        """Return them for strips or tiles of this size. Raises StripError when a shape is not known before it runs."""
        fixed = self._fixed(height, width)
        found = None if self._placed else _inferred(fixed)
        if found is None:  # slower, but handles more shape arithmetic, and operators that ONNX does not know
            found = self._compute(fixed, height, width)
        return {name: fact for name, fact in found.items() if name not in self._constants}

    def _fixed(self, height: int, width: int) -> ModelProto:
        fixed = ModelProto()
        fixed.CopyFrom(self._light)
        named = {"height": height, "width": width} | {c.width_name: c.columns_at(width) for c in self._carries}
        for one in self._kept:
            named |= dict(zip(one.names, one.sizes_at((height, width)), strict=True))
        for value in fixed.graph.input:
            for dim in value.type.tensor_type.shape.dim:
                if dim.dim_param in named:
                    dim.dim_value = named[dim.dim_param]
        for value in fixed.graph.output:
            value.type.tensor_type.ClearField("shape")
        return fixed

    def _compute(self, fixed: ModelProto, height: int, width: int) -> Found:
        """Compute all shape arithmetic; what is equal at several sizes is computed once."""
        if self._computed is None:
            self._computed = ir.from_proto(self._light)
        graph = self._computed.graph
        image, *others = [
            (value.name, tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim))
            for value in fixed.graph.input
        ]
        probe = Probe(self._computed, *image, others=dict(others), visits=False, memory=self._memory)
        if self._placed:  # shapes do not depend on the position, but without one they would be unknown
            place = np.array([height - self._beyond, 2 * height - self._beyond, 0, width], np.int64)
            probe.facts[POSITION] = Fact(TensorProto.INT64, place.shape, place)
        for node in graph:
            probe.visit(node)
        found: Found = {}
        for value in [*graph.inputs, *(output for node in graph for output in node.outputs)]:
            name = value.name or ""
            fact = probe.facts.get(name)
            if fact is None or fact.shape is None:
                raise StripError(f"the shape of {name} is not known before it runs")
            if name != POSITION:
                found[name] = fact.dtype, fact.shape
        return found


def _without_weights(model: ModelProto) -> tuple[ModelProto, set[str]]:
    """Return ``model`` with inputs of the same shape in place of its large constants; and their names."""
    large = [tensor for tensor in model.graph.initializer if prod(tensor.dims) > SMALL_VALUE_ELEMENTS]
    names = {tensor.name for tensor in large}
    declared = [helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)) for tensor in large]
    graph = helper.make_graph(
        list(model.graph.node),
        model.graph.name,
        [*(value for value in model.graph.input if value.name not in names), *declared],
        list(model.graph.output),
        [tensor for tensor in model.graph.initializer if tensor.name not in names],
        value_info=list(model.graph.value_info),
    )
    light = helper.make_model(graph, opset_imports=list(model.opset_import), functions=list(model.functions))
    light.ir_version = model.ir_version
    return light, names


def _inferred(fixed: ModelProto) -> Found | None:
    """Return what ONNX's shape inference finds; None where that is incomplete."""
    inferred = shape_inference.infer_shapes(fixed, data_prop=True).graph
    found: Found = {}
    for value in [*inferred.input, *inferred.value_info, *inferred.output]:
        dims = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(dim.HasField("dim_value") for dim in dims):
            found[value.name] = value.type.tensor_type.elem_type, tuple(dim.dim_value for dim in dims)
    complete = all(name in found for node in fixed.graph.node for name in node.output if name)
    return found if complete else None
