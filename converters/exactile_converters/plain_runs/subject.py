"""Run a network unchanged in plain ONNX Runtime: without planner, without fused input or output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from exactile.engines.onnx_runtime import load_library
from exactile.errors import EngineError, ModelError
from exactile_converters.geometry.feature_maps import FeatureMap
from exactile_converters.geometry.node_view import Labels
from exactile_converters.geometry.trace import ancestors
from exactile_converters.networks.network import Network

ERRORS_ONLY = 4
MOVES = {"Identity", "Cast", "Transpose", "Squeeze", "Unsqueeze"}
LAST_ACTIVATIONS = {"Softmax", "LogSoftmax", "Sigmoid", "HardSigmoid", "Tanh", "Clip", "ArgMax", "Greater"}
"""Pixelwise operators at a network's end that hide how far an influence reaches."""


def private_copy(network: Network) -> Network:
    """Return a copy of the network whose graph may be changed."""
    model = ir.from_proto(ir.to_proto(network.model))
    image = next(value for value in model.graph.inputs if value.name == network.image.name)
    result = next(value for value in model.graph.outputs if value.name == network.result.name)
    return replace(network, model=model, image=image, result=result)


def scores_of(network: Network, features: Mapping[str, FeatureMap]) -> ir.Value:
    """Return the map before the last activation (logits), which shows influences."""
    value = scores = network.result
    while (node := value.producer()) is not None and node.op_type in MOVES | LAST_ACTIVATIONS:
        source = node.inputs[0]
        feature = features.get(source.name or "") if source is not None else None
        if source is None or feature is None or not {"y", "x"} <= feature.scale.keys():
            break
        value = source
        if node.op_type in LAST_ACTIVATIONS:
            scores = value
    return scores


def ends_in_probability(network: Network) -> bool:
    """Return whether the result is already a probability."""
    node = network.result.producer()
    while node is not None and node.op_type in MOVES:
        source = node.inputs[0]
        node = source.producer() if source is not None else None
    return node is not None and node.op_type in {"Softmax", "Sigmoid", "HardSigmoid"}


def value_named(network: Network, name: str) -> ir.Value:
    """Return the value ``name`` of a node as an output of the graph, so that no rewrite bypasses or clips it."""
    value = next(value for node in network.model.graph for value in node.outputs if value.name == name)
    if not value.is_graph_output():
        network.model.graph.outputs.append(value)
    return value


class Subject:
    """Runs ``network`` up to ``output``, one of its feature maps, at any size that the network accepts.

    Consumes the network: give it a private copy.
    """

    def __init__(self, network: Network, output: ir.Value, feature: FeatureMap) -> None:
        self.channels = network.channels
        self.dtype: np.dtype[Any] = np.dtype(network.image.dtype.numpy() if network.image.dtype else np.float32)
        self._name = network.name
        self._image_name = network.image.name or ""
        self._image_labels, self._output_labels = network.labels, feature.labels
        ort = load_library()
        options = ort.SessionOptions()
        options.log_severity_level = ERRORS_ONLY
        # Each map is allocated and freed separately: ONNX Runtime's arena grows to twice what a pass takes, and stays.
        # No value depends on where maps lie.
        options.enable_cpu_mem_arena = options.enable_mem_pattern = options.enable_mem_reuse = False
        graph = plain_graph(network, output, feature)
        try:
            self._session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ModelError(f"{network.name}: ONNX Runtime does not take the network: {error}") from error

    def run(self, image: NDArray[Any]) -> NDArray[Any]:
        """Map ``image`` (H, W, C) in the network's own values to its output (C', H', W'). Raises EngineError."""
        tensor = np.expand_dims(image, 0).astype(self.dtype, copy=False)  # N, H, W, C
        order = tuple(("n", "y", "x", "c").index(label) for label in self._image_labels)
        feed = {self._image_name: np.ascontiguousarray(tensor.transpose(order))}
        try:
            (output,) = self._session.run(None, feed)
        except Exception as error:
            height, width = image.shape[:2]
            raise EngineError(f"{self._name} failed on an image of {height} x {width} pixels: {error}") from error
        return channels_first(output, self._output_labels)


def channels_first(output: NDArray[Any], labels: Labels) -> NDArray[Any]:
    """Map any order of axes to (C, H, W); other axes have size 1."""
    dims = {label: dim for dim, label in enumerate(labels) if label in {"y", "x"}}
    others = [dim for dim in range(output.ndim) if dim not in dims.values()]
    moved = output.transpose([*others, dims["y"], dims["x"]])
    return np.ascontiguousarray(moved.reshape(-1, *moved.shape[-2:]))


def plain_graph(network: Network, output: ir.Value, feature: FeatureMap) -> bytes:
    """Return the model up to ``output``, for any height and width; ``network`` is consumed."""
    graph = network.model.graph
    sizes: dict[str, int | str] = {"n": 1, "c": network.channels, "y": "height", "x": "width"}
    network.image.shape = ir.Shape([sizes[label] for label in network.labels])
    kept = set(ancestors(network.model, output))
    graph.inputs[:] = [network.image]
    graph.outputs[:] = [output]
    output.type = ir.TensorType(ir.DataType(feature.dtype))
    for node in graph:
        for value in node.outputs:
            value.shape = None  # shapes written for one size would contradict the others
    graph.remove([node for node in graph if node not in kept], safe=True)
    return bytes(ir.to_proto(network.model).SerializeToString())
