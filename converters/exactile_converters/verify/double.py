"""Run a network in float64: the same graph in double precision, in ONNX's reference evaluator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from exactile_converters.geometry.cost import cost_per_pixel
from exactile_converters.geometry.feature_maps import FeatureMap
from exactile_converters.geometry.trace import Traced
from exactile_converters.networks.network import Network
from exactile_converters.plain_runs.subject import channels_first, plain_graph
from exactile_converters.verify.double_kernels import FASTER

Array = NDArray[Any]

MOST_MACS = 3e10
"""A costlier pass takes longer than about half a minute on a few cores."""

REAL = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16}
DOUBLE_BYTES = 8


class NoDoubleError(Exception):
    """Why there is no pass in float64."""


class DoublePass:
    """Runs ``network``, which is not modified, up to ``output``; ``traced`` predicts the cost of a pass.

    Raises NoDoubleError where an operator has no float64 implementation.
    """

    def __init__(self, network: Network, output: ir.Value, feature: FeatureMap, traced: Traced) -> None:
        self._image = network.image.name or ""
        self._labels, self._result_labels = network.labels, feature.labels
        self._traced = traced
        self._macs = float(cost_per_pixel(traced.nodes, traced.features).mac_per_pixel or 0)
        proto = onnx.load_from_string(plain_graph(network, output, feature))
        self._real = _to_double(proto)
        try:
            self._evaluator = ReferenceEvaluator(proto, new_ops=list(FASTER))
        except Exception as error:
            raise NoDoubleError(f"an operator has no float64 implementation: {_first_line(error)}") from error

    def bytes_at(self, height: int, width: int) -> int:
        """Return the bytes of a pass: all maps, which are kept until it ends, and some copies of the largest one."""
        sizes = [_elements(feature, height, width) for feature in self._traced.features.values()]
        return DOUBLE_BYTES * int(sum(sizes) + 4 * max(sizes))

    def run(self, image: Array) -> Array:
        """Map ``image`` (H, W, C) in the network's own values to its output (C', H', W') float64.

        Raises NoDoubleError where it takes too long, and where the evaluator fails.
        """
        height, width = image.shape[:2]
        if self._macs * height * width > MOST_MACS:
            raise NoDoubleError(f"{height} x {width} pixels would take too long in float64")
        tensor = np.expand_dims(image, 0)
        order = tuple(("n", "y", "x", "c").index(label) for label in self._labels)
        given = np.ascontiguousarray(tensor.transpose(order))
        given = given.astype(np.float64) if self._real else given
        try:
            with np.errstate(all="ignore"):
                (output,) = self._evaluator.run(None, {self._image: given})
        except Exception as error:
            raise NoDoubleError(f"ONNX's reference evaluator fails: {_first_line(error)}") from error
        return channels_first(np.asarray(output, np.float64), self._result_labels)


def _elements(feature: FeatureMap, height: int, width: int) -> float:
    pixels: float = height * width
    for axis in ("y", "x"):
        pixels *= float(feature.scale.get(axis, 0) or 0)
    others = [size for label, size in zip(feature.labels, feature.shape, strict=True) if not {"y", "x"} & set(label)]
    return pixels * prod(others)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", maxsplit=1)[0][:200] or type(error).__name__


def _to_double(proto: onnx.ModelProto) -> bool:
    """Change all real numbers of ``proto`` in place; return whether its first input was one."""
    real = proto.graph.input[0].type.tensor_type.elem_type in REAL
    for graph in _graphs(proto.graph):
        del graph.value_info[:]
        for value in [*graph.input, *graph.output]:
            if value.type.tensor_type.elem_type in REAL:
                value.type.tensor_type.elem_type = TensorProto.DOUBLE
        for tensor in graph.initializer:
            _widen(tensor)
        for node in graph.node:
            _widen_attributes(node)
    return bool(real)


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _graphs(attribute.g)


def _widen(tensor: onnx.TensorProto) -> None:
    if tensor.data_type in REAL:
        values = numpy_helper.to_array(tensor).astype(np.float64)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _widen_attributes(node: onnx.NodeProto) -> None:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.TENSOR:
            _widen(attribute.t)
        elif attribute.name in _TYPES.get(node.op_type, ()) and attribute.i in REAL:
            attribute.i = TensorProto.DOUBLE
        elif node.op_type == "Constant" and attribute.name in {"value_float", "value_floats"}:
            values = np.asarray(helper.get_attribute_value(attribute), np.float64)
            attribute.CopyFrom(helper.make_attribute("value", numpy_helper.from_array(values)))


_TYPES: Mapping[str, tuple[str, ...]] = {
    "Cast": ("to",),
    "EyeLike": ("dtype",),
    "SequenceEmpty": ("dtype",),
}
"""Attributes that name a type."""
