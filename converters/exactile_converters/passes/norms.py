"""Recognise normalisations by the mean and variance of a whole map, over any of its axes."""

from __future__ import annotations

import onnx_ir as ir

from exactile_converters.geometry.feature_maps import FeatureMap
from exactile_converters.geometry.node_view import is_spatial
from exactile_converters.passes.taking import Taking, Written, kept_shape, moments

LAYER_EPSILON = 1e-5
"""From the definition of LayerNormalization."""


def layer_normalized(node: ir.Node, value: ir.Value, feature: FeatureMap) -> Taking | None:
    """Match a layer normalisation over the last axes, including rows and columns; scale and bias are unchanged.

    None where these are stored for each position, or where mean or deviation are results, too.
    """
    labels = feature.labels
    axes = range(node.attributes.get_int("axis", -1) % len(labels), len(labels))
    shape = kept_shape(feature, set(axes))
    if shape is None or any(one.uses() for one in node.outputs[1:]):
        return None
    affine = [one for one in node.inputs[1:] if one is not None]
    if any(_is_stored_for_places(one, feature) for one in affine):
        return None

    def after(placeholders: tuple[ir.Value, ...]) -> tuple[list[ir.Node], ir.Value]:
        written = Written(node)
        epsilon = written.constant(node.attributes.get_float("epsilon", LAYER_EPSILON))
        apart = written.add("Sub", value, placeholders[0])
        made = written.add("Div", apart, written.add("Sqrt", written.add("Add", placeholders[1], epsilon)))
        for op, operand in zip(("Mul", "Add"), affine, strict=False):
            made = written.add(op, made, operand)
        return written.nodes, made

    return moments(value, labels, shape, node.outputs[0], after)


def _is_stored_for_places(value: ir.Value, feature: FeatureMap) -> bool:
    """Return whether a constant has an entry for each row or column."""
    if value.const_value is None:
        return False
    sizes = [int(str(size)) for size in value.const_value.shape]
    return any(
        size != 1 and is_spatial(label) for size, label in zip(reversed(sizes), reversed(feature.labels), strict=False)
    )
