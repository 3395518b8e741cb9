"""Recognise operators that reduce a whole feature map to a few numbers, and express each as a statistic."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod

import numpy as np
import onnx_ir as ir

from exactile.contract.statistic import StatisticKind
from exactile_converters.geometry.feature_maps import FeatureMap
from exactile_converters.geometry.node_view import SPATIAL, Labels
from exactile_converters.passes.flattened import in_rows, rows_of, with_two_axes
from exactile_converters.passes.norms import layer_normalized
from exactile_converters.passes.taking import (
    FLOAT,
    Shape,
    ShapeOf,
    Taking,
    Written,
    kept_shape,
    moments,
    reduced_axes,
    shape_of,
)
from exactile_converters.passes.variance import variance_about_mean

Features = Mapping[str, FeatureMap]

KINDS: Mapping[str, StatisticKind] = {
    "ReduceMean": "mean",
    "ReduceSum": "sum",
    "ReduceMax": "maximum",
    "ReduceMin": "minimum",
    "ReduceL1": "sum",
    "ReduceL2": "sum",
    "ReduceSumSquare": "sum",
    "ReduceLogSum": "sum",
    "GlobalAveragePool": "mean",
    "GlobalMaxPool": "maximum",
}
BEFORE = {"ReduceL1": "Abs", "ReduceL2": "Square", "ReduceSumSquare": "Square"}
"""The function of the map that is reduced."""

AFTER = {"ReduceL2": "Sqrt", "ReduceLogSum": "Log"}
"""The function of the statistic that is the result."""

MVN_EPSILON = 1e-9
"""Added to the standard deviation; from the definition of MeanVarianceNormalization."""


def global_operator(node: ir.Node, features: Features, shapes_of: ShapeOf) -> Taking | None:
    """Return the statistic that ``node`` computes of a whole map among ``features``; None for other operators.

    ``shapes_of`` returns the shapes of values at two image sizes.
    """
    if node.domain not in ("", "ai.onnx") or not node.inputs or node.inputs[0] is None:
        return None
    value = node.inputs[0]
    feature = features.get(value.name or "")
    if node.op_type == "InstanceNormalization" and (feature is None or "yx" in feature.labels):
        return _grouped_by_reshape(node, features, shapes_of)
    if feature is None or feature.dtype != FLOAT.value:
        return None
    if node.op_type in KINDS and ("yx" in feature.labels or all(axis in feature.labels for axis in SPATIAL)):
        return _reduced(node, value, feature, features)
    found = _MATCHERS.get(node.op_type)
    return found(node, value, feature) if found is not None and "yx" not in feature.labels else None


def _reduced(node: ir.Node, value: ir.Value, feature: FeatureMap, features: Features) -> Taking | None:
    """Match a global pool, or a reduction over both axes of the image or over one axis that contains both."""
    labels = feature.labels
    axes = _axes(node, labels)
    sizes = kept_shape(feature, set(axes)) if axes is not None else None
    if axes is None or sizes is None:
        return None
    kept = bool(node.attributes.get_int("keepdims", 1)) or node.op_type.startswith("Global")
    shape = tuple(size for dim, size in enumerate(sizes) if kept or dim not in axes)

    def plain() -> Taking | None:
        return _plain(node, value, feature, features, prod(sizes), shape)

    about = variance_about_mean(node) if KINDS[node.op_type] == "mean" else None
    if about is None or (about.less and about.mean is not None and shape_of(about.mean) != shape):
        return plain()
    if about.mean is None:
        return None
    return Taking(
        kind="variance",
        of=rows_of(about.of) or about.of,
        labels=with_two_axes(labels),
        groups=prod(sizes),
        names=("variance",),
        shapes=(shape,),
        result=about.result,
        after=lambda placeholders: ([], placeholders[0]),
        mean=about.mean,
        otherwise=plain,
    )


def _plain(
    node: ir.Node, value: ir.Value, feature: FeatureMap, features: Features, groups: int, shape: Shape
) -> Taking | None:
    """Match a reduction that is part of nothing else."""
    rows = in_rows(node, value, feature, features) if "yx" in feature.labels else ([], value)
    if rows is None:
        return None
    before, of = rows
    if node.op_type in BEFORE:
        square = BEFORE[node.op_type] == "Square"
        first = ir.node("Mul" if square else "Abs", [of, of] if square else [of], name=f"{node.name}_before")
        of = first.outputs[0]
        of.name, of.type = f"{node.outputs[0].name}_before", value.type
        before.append(first)

    def after(placeholders: tuple[ir.Value, ...]) -> tuple[list[ir.Node], ir.Value]:
        if node.op_type not in AFTER:
            return [], placeholders[0]
        last = ir.node(AFTER[node.op_type], [placeholders[0]], name=f"{node.name}_after")
        last.outputs[0].name = f"{node.outputs[0].name}_after"
        return [last], last.outputs[0]

    kind = KINDS[node.op_type]
    return Taking(
        kind=kind,
        of=of,
        labels=with_two_axes(feature.labels),
        groups=groups,
        names=(kind,),
        shapes=(shape,),
        result=node.outputs[0],
        after=after,
        before=before,
    )


def _axes(node: ir.Node, labels: Labels) -> tuple[int, ...] | None:
    if node.op_type.startswith("Global"):
        return tuple(range(2, len(labels))) if labels[:2] == ("n", "c") else None
    return reduced_axes(node, labels)


def _normalized(node: ir.Node, value: ir.Value, feature: FeatureMap) -> Taking | None:
    """Match a normalisation, written as a batch normalisation by moments: one kernel that makes no copies."""
    running = node.op_type == "BatchNormalization" and not node.attributes.get_int("training_mode", 0)
    if running or feature.labels != ("n", "c", "y", "x"):
        return None
    channels = feature.shape[1]
    groups = node.attributes.get_int("num_groups", 0) if node.op_type == "GroupNormalization" else channels
    if groups < 1 or channels % groups:
        return None
    scale, bias = (_for_channels(node.inputs[index], channels) for index in (1, 2))
    if scale is None or bias is None:
        return None
    return _by_moments(node, value, feature.labels, groups, (scale, bias), node.outputs[0])


def _for_channels(value: ir.Value | None, channels: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]] | None:
    """Return, for each channel, a constant with one entry for each channel or for each group of channels."""
    constant = value.const_value if value is not None else None
    if constant is None:
        return None
    array = constant.numpy().astype(np.float32).ravel()
    return np.repeat(array, channels // array.size) if array.size and channels % array.size == 0 else None


def _by_moments(
    node: ir.Node,
    value: ir.Value,
    labels: Labels,
    groups: int,
    affine: tuple[np.ndarray[tuple[int, ...], np.dtype[np.float32]], ...],
    result: ir.Value,
) -> Taking:
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    channels = affine[0].size

    def after(placeholders: tuple[ir.Value, ...]) -> tuple[list[ir.Node], ir.Value]:
        graph = node.graph
        assert isinstance(graph, ir.Graph)
        constants = []
        for name, array in zip(("scale", "bias"), affine, strict=True):
            constant = ir.Value(
                name=f"{result.name}_{name}", const_value=ir.tensor(array, name=f"{result.name}_{name}")
            )
            graph.register_initializer(constant)
            constants.append(constant)
        made = ir.node(
            "BatchNormalization",
            [value, *constants, *placeholders],
            attributes={"epsilon": epsilon},
            name=f"{node.name or result.name}_by_moments",
        )
        made.outputs[0].name, made.outputs[0].type = f"{result.name}_by_moments", result.type
        return [made], made.outputs[0]

    return Taking(
        kind="moments",
        of=value,
        labels=labels,
        groups=groups,
        names=("mean", "variance"),
        shapes=((channels,), (channels,)),
        result=result,
        after=after,
    )


def _grouped_by_reshape(node: ir.Node, features: Features, shapes_of: ShapeOf) -> Taking | None:
    """Match PyTorch's group normalisation: ``Reshape`` to (1, groups, -1), instance normalisation, and back."""
    grouped = node.inputs[0].producer() if node.inputs[0] is not None else None
    value = grouped.inputs[0] if grouped is not None and grouped.op_type == "Reshape" else None
    feature = features.get(value.name or "") if value is not None else None
    users = [user for user, _ in node.outputs[0].uses()]
    back = len(users) == 1 and users[0].op_type == "Reshape"
    if value is None or feature is None or feature.labels != ("n", "c", "y", "x") or not back:
        return None
    result, channels = users[0].outputs[0], feature.shape[1]
    groups = _groups(shapes_of(grouped.outputs[0]), channels) if grouped is not None else 0
    affine = [_for_channels(node.inputs[index], channels) for index in (1, 2)]
    scale, bias = affine
    known = feature.dtype == FLOAT.value and shapes_of(value) is not None and shapes_of(value) == shapes_of(result)
    if not known or not groups or scale is None or bias is None:
        return None
    return _by_moments(node, value, feature.labels, groups, (scale, bias), result)


def _groups(between: tuple[Shape, Shape] | None, channels: int) -> int:
    """Return the number of groups of ``channels`` in (1, groups, pixels) at two sizes; 0 for another shape."""
    if between is None or len(between[0]) != len(("n", "groups", "pixels")):
        return 0
    (batch, groups, _), other = between
    return groups if batch == 1 and other[1] == groups and groups > 0 and channels % groups == 0 else 0


def _mean_variance(node: ir.Node, value: ir.Value, feature: FeatureMap) -> Taking | None:
    labels = feature.labels
    shape = kept_shape(feature, {axis % len(labels) for axis in node.attributes.get_ints("axes", (0, 2, 3))})
    if shape is None:
        return None

    def after(placeholders: tuple[ir.Value, ...]) -> tuple[list[ir.Node], ir.Value]:
        written = Written(node)
        deviation = written.add("Add", written.add("Sqrt", placeholders[1]), written.constant(MVN_EPSILON))
        return written.nodes, written.add("Div", written.add("Sub", value, placeholders[0]), deviation)

    return moments(value, labels, shape, node.outputs[0], after)


_MATCHERS: Mapping[str, Callable[[ir.Node, ir.Value, FeatureMap], Taking | None]] = {
    "BatchNormalization": _normalized,
    "GroupNormalization": _normalized,
    "InstanceNormalization": _normalized,
    "LayerNormalization": layer_normalized,
    "MeanVarianceNormalization": _mean_variance,
}
