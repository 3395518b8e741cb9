"""Infer facts of common nodes by own rules, which are faster than ONNX's inference and evaluator.

These rules are used for a node only after they once agreed with ONNX, for operands of the same types and ranks, whose
values were, or were not, known in the same way.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from exactile_converters.geometry.fact import Fact
from exactile_converters.geometry.plain_shapes import plain_shape, resized_shape
from exactile_converters.geometry.plain_values import plain_value


def plain_signature(node: ir.Node, facts: Sequence[Fact | None]) -> Hashable:
    """Return what decides, besides sizes, which rule computes the result of ``node`` and how."""
    kinds = ((fact.dtype, len(fact.shape)) if fact is not None and fact.shape is not None else None for fact in facts)
    return ("plain", node, _are_numbers(facts), *kinds)


def plain_fact(node: ir.Node, facts: Sequence[Fact | None], dtype: int) -> Fact | None:
    """Return the fact of the result of ``node``, which is of ``dtype``; None if there is no rule for it."""
    shapes = [fact.shape if fact is not None else None for fact in facts]
    if node.op_type == "Shape" and not node.domain and not node.attributes and shapes[0] is not None:
        return Fact(dtype, (len(shapes[0]),), np.array(shapes[0], np.int64))
    values = [fact.value if fact is not None else None for fact in facts]
    if _are_numbers(facts):
        value = plain_value(node, values)
        return Fact(dtype, value.shape, value) if value is not None else None
    shape = resized_shape(node, shapes, values) if node.op_type == "Resize" else plain_shape(node, shapes)
    return Fact(dtype, shape) if shape is not None else None


def same_value(one: NDArray[Any] | None, other: NDArray[Any] | None) -> bool:
    """Return whether both are unknown, or equal in type and value."""
    if one is None or other is None:
        return one is other
    return one.dtype == other.dtype and np.array_equal(one, other)


def _are_numbers(facts: Sequence[Fact | None]) -> bool:
    """Return whether the values of all operands are known."""
    return all(fact is None or fact.value is not None for fact in facts)
