"""Products of maps over all positions: for each i and j the sum over p of ``first[i, p] * second[j, p]``.

They are written as sums of as many maps as there are i and j, which no graph computes: partial sums are matrix
products, row by row of a tile's zone.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from exactile_converters.geometry.feature_maps import FeatureMap
from exactile_converters.geometry.node_view import is_spatial
from exactile_converters.passes.flattened import SUFFIX
from exactile_converters.passes.taking import FLOAT, Written

MOST_ENTRIES = 1 << 16
"""Most entries of a product; they are merged for every tile."""

Factors = tuple[ir.Value, ir.Value]


def product(node: ir.Node, first: FeatureMap, second: FeatureMap) -> tuple[list[ir.Node], ir.Value] | None:
    """Return what replaces a matrix product, (..., i, p) times (..., p, j); None for any other."""
    rank = len(first.labels)
    if rank < 3 or len(second.labels) != rank or first.shape[:-2] != second.shape[:-2]:
        return None
    alike = (first.scale, first.constant) == (second.scale, second.constant)
    if first.labels[-1] != "yx" or second.labels[-2] != "yx" or not alike or second.dtype != FLOAT.value:
        return None
    if any(is_spatial(label) for label in (*first.labels[:-1], *second.labels[:-2], second.labels[-1])):
        return None
    if first.shape[-2] * second.shape[-1] > MOST_ENTRIES:
        return None
    one, other = node.inputs
    assert one is not None
    assert other is not None
    written = Written(node)
    turned = written.add("Transpose", other, perm=[*range(rank - 2), rank - 1, rank - 2])
    left = written.add("Unsqueeze", one, written.constant([rank - 1], np.int64))
    right = written.add("Unsqueeze", turned, written.constant([rank - 2], np.int64))
    return written.nodes, written.reduced("ReduceSum", written.add("Mul", left, right), [rank], keep=0)


def factors_of(value: ir.Value) -> Factors | None:
    """Return (..., i, p) and (..., j, p) whose products, with rows and columns, are ``value``; None for another map."""
    rows = value.producer()
    if rows is None or rows.op_type != "Reshape" or not (value.name or "").endswith(SUFFIX) or rows.inputs[0] is None:
        return None
    made = rows.inputs[0].producer()
    if made is None or made.op_type != "Mul":
        return None
    found: list[ir.Value] = []
    axes: list[int] = []
    for operand in made.inputs:
        maker = operand.producer() if operand is not None else None
        axis = maker.inputs[1].const_value if maker is not None and len(maker.inputs) > 1 and maker.inputs[1] else None
        if maker is None or maker.op_type != "Unsqueeze" or axis is None or axis.size != 1 or maker.inputs[0] is None:
            return None
        found.append(maker.inputs[0])
        axes.append(int(axis.numpy().ravel()[0]))
    return (found[0], found[1]) if axes[0] == axes[1] + 1 else None


def computed_as_one(node: ir.Node) -> bool:
    """Return whether ``node`` makes products that no graph computes."""
    if node.op_type == "Mul":
        return any(user.op_type == "Reshape" and factors_of(user.outputs[0]) for user, _ in node.outputs[0].uses())
    return node.op_type == "Reshape" and factors_of(node.outputs[0]) is not None


def lengths_of(products: ir.Value) -> ir.Value:
    """Return rows and columns of a map of products, int64 (2,)."""
    rows = products.producer()
    sizes = rows.inputs[1].producer() if rows is not None and rows.inputs[1] is not None else None
    assert sizes is not None
    return next(part for part in sizes.inputs if part is not None and part.producer() is not None)
