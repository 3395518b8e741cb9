"""Infer where in the image a result lies that lost pixels at its edges, in a network with obstacles.

In a network without obstacles, the walk infers it from the windows that lose them. So each obstacle is replaced by
something that keeps every pixel in place: a normalisation or similar by its input, an operator that reduces the whole
image to a few numbers by a constant. With any other obstacle, the place is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

import numpy as np
import onnx_ir as ir

from exactile.errors import ModelError
from exactile_converters.geometry.fact import Fact
from exactile_converters.geometry.feature_maps import FeatureMap
from exactile_converters.geometry.node_view import Label
from exactile_converters.networks.network import Network

KEEP_PLACES = frozenset(
    "Add Div DynamicQuantizeLinear GroupNormalization InstanceNormalization LayerNormalization LogSoftmax "
    "LpNormalization MeanVarianceNormalization Mul RMSNormalization Softmax Sub".split()
)
"""Operators whose result has its pixels where their first input has them, whatever they are computed from."""

MOST_ROUNDS = 64
FEW_NUMBERS = 1 << 16


def origin_of(
    network: Network, result: FeatureMap, facts: Mapping[str, Fact], features: Mapping[str, FeatureMap]
) -> Mapping[Label, Fraction] | None:
    """Return, along each axis, where the first pixel of ``result`` lies, in image pixels; None where that is unknown.

    ``facts`` and ``features`` are those of ``network``, by name, at one image size.
    """
    shadow = network.copy()
    for _ in range(MOST_ROUNDS):
        try:
            traced = shadow.trace()
        except ModelError:
            return None
        if traced.geometry is not None:
            axes: Mapping[Label, tuple[Fraction, Fraction, Fraction]] = {
                "y": (traced.geometry.y.scale, traced.geometry.y.size_constant, traced.geometry.y.origin),
                "x": (traced.geometry.x.scale, traced.geometry.x.size_constant, traced.geometry.x.origin),
            }
            same = all(axes[axis][:2] == (result.scale[axis], result.constant[axis]) for axis in axes)
            return {axis: origin for axis, (_, _, origin) in axes.items()} if same else None
        named = {obstacle.node for obstacle in traced.obstacles}
        nodes = [node for node in traced.nodes if (node.name or node.outputs[0].name) in named]
        if not nodes:
            return None
        for node in nodes:
            other = _in_place_of(node, shadow, facts, features)
            if other is None:
                return None
            shadow = _without(shadow, node, other)
    return None


def _in_place_of(
    node: ir.Node, network: Network, facts: Mapping[str, Fact], features: Mapping[str, FeatureMap]
) -> ir.Value | None:
    """Return what replaces the only used output of ``node`` and keeps pixels in place."""
    used = [value for value in node.outputs if value.uses() or value.is_graph_output()]
    source = node.inputs[0] if node.inputs else None
    made = facts.get(used[0].name or "") if len(used) == 1 else None
    taken = facts.get(source.name or "") if source is not None else None
    if made is None or made.shape is None:
        return None
    if source is not None and source.name in features and taken is not None and taken.shape == made.shape:
        return source if node.op_type in KEEP_PLACES and not node.domain else None
    if used[0].name in features or int(np.prod(made.shape)) > FEW_NUMBERS or not made.dtype:
        return None
    array = np.zeros(made.shape, ir.DataType(made.dtype).numpy())
    constant = ir.Value(name=f"{used[0].name}_anything", const_value=ir.tensor(array))
    network.model.graph.register_initializer(constant)
    return constant


def _without(network: Network, node: ir.Node, other: ir.Value) -> Network:
    used = next(value for value in node.outputs if value.uses() or value.is_graph_output())
    if network.result is used:
        network = replace(network, result=other)
    for place, output in enumerate(network.model.graph.outputs):
        if output is used:
            network.model.graph.outputs[place] = other
    used.replace_all_uses_with(other)
    return network
