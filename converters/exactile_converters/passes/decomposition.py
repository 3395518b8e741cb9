"""Decompose operators that read the whole image in several steps into reductions and local operators.

A softmax over the image, for example, is ``exp(x - max) / sum(exp(x - max))``: the maximum is a statistic, and the sum
is one that depends on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import onnx_ir as ir

from exactile_converters.geometry.feature_maps import FeatureMap
from exactile_converters.geometry.node_view import SPATIAL
from exactile_converters.passes.contraction import contracted
from exactile_converters.passes.products import product
from exactile_converters.passes.taking import FLOAT, Written, kept_shape, reduced_axes

Features = Mapping[str, FeatureMap]
Steps = tuple[list[ir.Node], ir.Value]


def decomposed(node: ir.Node, features: Features) -> Steps | None:
    """Return the nodes that replace ``node``, and their result; None for local operators and those not decomposed."""
    if node.domain not in ("", "ai.onnx") or node.op_type not in _STEPS or node.inputs[0] is None:
        return None
    feature = features.get(node.inputs[0].name or "")
    if feature is None or feature.dtype != FLOAT.value:
        return None
    return _STEPS[node.op_type](node, feature, features)


def _softmax(node: ir.Node, feature: FeatureMap, _features: Features) -> Steps | None:
    """Decompose a softmax over rows and columns that are one axis."""
    value, axis = node.inputs[0], node.attributes.get_int("axis", -1) % len(feature.labels)
    if value is None or feature.labels[axis] != "yx":
        return None
    written = Written(node)
    apart = written.add("Sub", value, written.reduced("ReduceMax", value, [axis]))
    exponential = written.add("Exp", apart)
    total = written.reduced("ReduceSum", exponential, [axis])
    if node.op_type == "LogSoftmax":
        return written.nodes, written.add("Sub", apart, written.add("Log", total))
    return written.nodes, written.add("Div", exponential, total)


def _log_of_exponentials(node: ir.Node, feature: FeatureMap, _features: Features) -> Steps | None:
    """Decompose the logarithm of a sum of exponentials, which itself may overflow."""
    value, axes = node.inputs[0], reduced_axes(node, feature.labels)
    if value is None or axes is None or kept_shape(feature, set(axes)) is None:
        return None
    keep = node.attributes.get_int("keepdims", 1)
    written = Written(node)
    apart = written.add("Sub", value, written.reduced("ReduceMax", value, axes))
    total = written.reduced("ReduceSum", written.add("Exp", apart), axes, keep=keep)
    return written.nodes, written.add(
        "Add", written.add("Log", total), written.reduced("ReduceMax", value, axes, keep=keep)
    )


def _power_mean(node: ir.Node, feature: FeatureMap, _features: Features) -> Steps | None:
    """Decompose GlobalLpPool: the p-th root of the sum of p-th powers."""
    value, power = node.inputs[0], node.attributes.get_int("p", 2)
    if value is None or feature.labels != ("n", "c", *SPATIAL) or power < 1:
        return None
    written, axes = Written(node), (2, 3)
    if power <= len(("ReduceL1", "ReduceL2")):
        return written.nodes, written.reduced(f"ReduceL{power}", value, axes)
    powers = written.add("Pow", written.add("Abs", value), written.constant(power))
    return written.nodes, written.add("Pow", written.reduced("ReduceSum", powers, axes), written.constant(1 / power))


def _product(node: ir.Node, feature: FeatureMap, features: Features) -> Steps | None:
    """Decompose (..., i, p) times (..., p, j), where p are all positions."""
    second = node.inputs[1]
    other = features.get(second.name or "") if second is not None else None
    return product(node, feature, other) if other is not None else None


_STEPS: Mapping[str, Callable[[ir.Node, FeatureMap, Features], Steps | None]] = {
    "Softmax": _softmax,
    "LogSoftmax": _softmax,
    "ReduceLogSumExp": _log_of_exponentials,
    "GlobalLpPool": _power_mean,
    "MatMul": _product,
    "Einsum": lambda node, _feature, features: contracted(node, features),
}
