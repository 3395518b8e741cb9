"""Write an Einsum over all positions as a matrix product or a sum."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from exactile_converters.geometry.feature_maps import FeatureMap
from exactile_converters.passes.taking import Written


def contracted(node: ir.Node, features: Mapping[str, FeatureMap]) -> tuple[list[ir.Node], ir.Value] | None:
    """Return the nodes that replace an Einsum over all positions, and their result; None for any other Einsum.

    For one map, or for two whose only common letters are the positions and those that the result has, too.
    """
    terms, result = _terms(node)
    maps = [features.get(value.name or "") for value in node.inputs if value is not None]
    if not terms or len(terms) != len(node.inputs) or len(maps) != len(terms):
        return None
    places = set()
    for letters, one in zip(terms, maps, strict=True):
        if one is None or len(letters) != len(one.labels) or len(set(letters)) < len(letters):
            return None
        places.add("".join(letter for letter, label in zip(letters, one.labels, strict=True) if label == "yx"))
    if len(places) != 1:
        return None
    (position,) = places
    if len(position) != 1 or position in result or len(set(result)) < len(result):
        return None
    return _summed(node, terms[0], position, result) if len(terms) == 1 else _product(node, terms, position, result)


def _terms(node: ir.Node) -> tuple[list[str], str]:
    """Return the letters of each operand and of the result; none where some are omitted."""
    text = node.attributes.get_string("equation", "") or ""
    left, arrow, right = text.replace(" ", "").partition("->")
    return (left.split(","), right) if arrow and "." not in text else ([], "")


def _summed(node: ir.Node, letters: str, position: str, result: str) -> tuple[list[ir.Node], ir.Value] | None:
    value, left = node.inputs[0], letters.replace(position, "")
    if value is None or sorted(left) != sorted(result):
        return None
    written = Written(node)
    total = written.reduced("ReduceSum", value, [letters.index(position)], keep=0)
    return written.nodes, _ordered(written, total, left, result)


def _product(node: ir.Node, terms: list[str], position: str, result: str) -> tuple[list[ir.Node], ir.Value] | None:
    first, second = terms[0], terms[1]
    values = node.inputs
    shared = [letter for letter in first if letter in second and letter != position]
    rows, columns = ([letter for letter in term if letter not in (*shared, position)] for term in (first, second))
    lone = len(rows) <= 1 and len(columns) <= 1
    if len(terms) != len(("first", "second")) or not lone or sorted([*shared, *rows, *columns]) != sorted(result):
        return None
    if values[0] is None or values[1] is None:
        return None
    written, rank = Written(node), len(shared)
    left = _ordered(written, values[0], first, "".join([*shared, *rows, position]))
    right = _ordered(written, values[1], second, "".join([*shared, position, *columns]))
    if not rows:
        left = written.add("Unsqueeze", left, written.constant([rank], np.int64))
    if not columns:
        right = written.add("Unsqueeze", right, written.constant([rank + 1], np.int64))
    made = written.add("MatMul", left, right)
    missing = [rank + index for index, letters in enumerate((rows, columns)) if not letters]
    if missing:
        made = written.add("Squeeze", made, written.constant(missing, np.int64))
    return written.nodes, _ordered(written, made, "".join([*shared, *rows, *columns]), result)


def _ordered(written: Written, value: ir.Value, letters: str, wanted: str) -> ir.Value:
    if letters == wanted:
        return value
    return written.add("Transpose", value, perm=[letters.index(letter) for letter in wanted])
