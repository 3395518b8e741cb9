"""Track from which parts of a cyclically shifted map each entry of a later map is computed.

A shift divides a map into two parts along its axis: those that it moves around the edge, and the rest; two shifts into
four. For each later map, an array of the same shape holds the set of these parts for each entry, as bits. The result of
an unknown operator depends on everything that it reads. More is known of attention in windows:

1. A score to which a mask adds LEAST_MASK or less is *left out*: a softmax turns it into 0, up to single precision, and
   the other scores of its row do not depend on it.
2. What is multiplied by that 0 does not contribute to a product.

In detail for 1: with a mask of ``-m``, a score left out has the weight ``exp(d - m)`` relative to the largest one of
its row, where ``d`` is its score without the mask minus that one. In single precision this vanishes as long as ``d < m
- 24``: for the usual 100, as long as the scores of a window differ by less than 76. Minus infinity leaves scores out
whatever they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from exactile_converters.geometry.node_view import Label
from exactile_converters.geometry.probe import Probe
from exactile_converters.geometry.rules.channels import REDUCTIONS
from exactile_converters.geometry.rules.pixelwise import BROADCASTING, UNARY

Parts = NDArray[np.uint8]

OF_PARTS = np.uint8(0b1111)
LEFT_OUT = np.uint8(0b10000)
ZERO = np.uint8(0b100000)

MOVED: dict[Label, np.uint8] = {"y": np.uint8(0b1010), "x": np.uint8(0b1100)}
"""The parts that a shift along an axis moves around the edge."""

UNMOVED: dict[Label, np.uint8] = {axis: OF_PARTS & ~moved for axis, moved in MOVED.items()}

LEAST_MASK = -80.0
"""A mask adds this or less to what it leaves out."""

COPIES = {"Cast", "Dropout", "Identity"}
INDEX_OPERATORS = {"ArgMax", "ArgMin"}
NORMALIZING = {"LayerNormalization": True, "LogSoftmax": False, "LpNormalization": False, "RMSNormalization": True}
"""Operators over one axis; if true, over all axes from it on."""


class NotFollowedError(Exception):
    """An operator for which it is unknown what its result is computed from."""


class Operands:
    """Operands of a node at one image size: parts of maps, and values of constants, by operand."""

    def __init__(self, node: ir.Node, probe: Probe, parts: Sequence[Parts | None], positions: Sequence[int]) -> None:
        self.node, self.parts = node, parts
        self._probe, self._positions = probe, positions

    def made(self, index: int = 0) -> tuple[int, ...]:
        """Return the shape of a result."""
        return self._shape(self.node.outputs[index])

    def shape(self, index: int) -> tuple[int, ...]:
        return self._shape(self.node.inputs[index])

    def _shape(self, value: ir.Value | None) -> tuple[int, ...]:
        fact = self._probe.of(value)
        if fact is None or fact.shape is None:
            raise NotFollowedError
        return fact.shape

    def value(self, index: int) -> NDArray[Any] | None:
        """Return the value of a constant that every tile computes for itself; None where it is unknown."""
        known = index < len(self.node.inputs) and self.node.inputs[index] is not None and index not in self._positions
        fact = self._probe.of(self.node.inputs[index]) if known else None
        return fact.value if fact is not None else None

    def integers(self, index: int) -> list[int] | None:
        """Return a list of axes, sizes and the like; None where it is not given."""
        if index >= len(self.node.inputs) or self.node.inputs[index] is None:
            return None
        value = self.value(index)
        if value is None:
            raise NotFollowedError
        return [int(one) for one in value.ravel()]

    def only(self) -> Parts:
        """Return the parts of the first operand, where no other is a map."""
        first, *others = self.parts
        if first is None or any(one is not None for one in others):
            raise NotFollowedError
        return first


def parts_of_results(operands: Operands) -> list[Parts]:
    """Return the parts of each result of a node. Raises NotFollowedError."""
    node = operands.node
    rule = _RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    if rule is None:
        raise NotFollowedError
    return rule(operands)


def _copied(at: Operands) -> list[Parts]:
    return [at.only()] * len(at.node.outputs)


def _each(at: Operands) -> list[Parts]:
    return [at.only() & OF_PARTS]


def _together(at: Operands) -> list[Parts]:
    """Follow an element-wise operator."""
    found = np.zeros(at.made(), np.uint8)
    for one in at.parts:
        if one is not None:
            found |= one & OF_PARTS
    return [found]


def _added(at: Operands) -> list[Parts]:
    """Follow an addition: a score that is left out stays so where nothing above 0 is added."""
    (found,) = _together(at)
    if len([one for one in at.parts if one is not None]) != 1:
        return [found]
    index = next(index for index, one in enumerate(at.parts) if one is not None)
    added, given = at.value(1 - index), at.parts[index]
    if added is None or given is None:
        return [found]
    out = (added <= LEAST_MASK) | ((given & LEFT_OUT > 0) & (added <= 0))
    return [found | np.where(np.broadcast_to(out, found.shape), LEFT_OUT, 0).astype(np.uint8)]


def _chosen(at: Operands) -> list[Parts]:
    """Follow a choice by a mask, from maps and constants."""
    condition = at.value(0)
    if condition is None:
        return _together(at)
    sides = [np.broadcast_to(_side(at, index), at.made()) for index in (1, 2)]
    return [np.where(condition, *sides).astype(np.uint8)]


def _side(at: Operands, index: int) -> Parts:
    given, value = at.parts[index], at.value(index)
    if given is not None:
        return given
    if value is None:
        raise NotFollowedError
    return np.where(value <= LEAST_MASK, LEFT_OUT, np.where(value == 0, ZERO, 0)).astype(np.uint8)


def _softmax(at: Operands) -> list[Parts]:
    given, axis = at.only(), at.node.attributes.get_int("axis", -1)
    kept = given & LEFT_OUT == 0
    row = np.bitwise_or.reduce(np.where(kept, given & OF_PARTS, 0).astype(np.uint8), axis=axis, keepdims=True)
    anything = np.bitwise_or.reduce(given & OF_PARTS, axis=axis, keepdims=True)
    of_scores = np.where(kept, row, ZERO)
    # Where all scores are left out, the softmax is that of the original scores.
    return [np.where(kept.any(axis=axis, keepdims=True), of_scores, anything).astype(np.uint8)]


def _normalized(at: Operands) -> list[Parts]:
    given, rank = at.only() & OF_PARTS, at.only().ndim
    axis = at.node.attributes.get_int("axis", -1) % rank
    axes = tuple(range(axis, rank)) if NORMALIZING[at.node.op_type] else (axis,)
    together = np.bitwise_or.reduce(given, axis=axes, keepdims=True)
    return [np.ascontiguousarray(np.broadcast_to(together, given.shape))] * len(at.node.outputs)


def _reduced(at: Operands) -> list[Parts]:
    given = at.only() & OF_PARTS
    axes = at.integers(1)
    if axes is None:
        axes = list(at.node.attributes.get_ints("axes", ()))
    if not axes and at.node.attributes.get_int("noop_with_empty_axes", 0) != 0:
        return [given]
    return [np.bitwise_or.reduce(given, axis=tuple(axes) or None, keepdims=True).reshape(at.made()).astype(np.uint8)]


def _regrouped(at: Operands) -> list[Parts]:
    return [at.only().reshape(at.made())]


def _transposed(at: Operands) -> list[Parts]:
    given = at.only()
    return [given.transpose(at.node.attributes.get_ints("perm", tuple(reversed(range(given.ndim)))))]


def _expanded(at: Operands) -> list[Parts]:
    return [np.broadcast_to(at.only(), at.made())]


def _cut(at: Operands) -> list[Parts]:
    given = at.only()
    starts, ends = at.integers(1), at.integers(2)
    if starts is None or ends is None:
        raise NotFollowedError
    axes, steps = at.integers(3) or list(range(len(starts))), at.integers(4) or [1] * len(starts)
    if min(steps) < 1:
        raise NotFollowedError
    parts = [slice(None)] * given.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        parts[axis] = slice(start, end, step)
    return [given[tuple(parts)]]


def _split(at: Operands) -> list[Parts]:
    given, axis = at.only(), at.node.attributes.get_int("axis", 0)
    ends = np.cumsum([at.made(index)[axis] for index in range(len(at.node.outputs))])
    return np.split(given, ends[:-1], axis=axis)


def _joined(at: Operands) -> list[Parts]:
    pieces = [one if one is not None else np.zeros(at.shape(index), np.uint8) for index, one in enumerate(at.parts)]
    return [np.concatenate(pieces, axis=at.node.attributes.get_int("axis", 0))]


def _padded(at: Operands) -> list[Parts]:
    """Follow padding by a constant."""
    given, pads = at.only(), at.integers(1)
    if pads is None or min(pads) < 0 or at.node.attributes.get_string("mode", "constant") != "constant":
        raise NotFollowedError
    axes = [axis % given.ndim for axis in at.integers(3) or range(given.ndim)]
    around = dict(zip(axes, zip(pads[: len(axes)], pads[len(axes) :], strict=True), strict=True))
    return [np.pad(given, [around.get(dim, (0, 0)) for dim in range(given.ndim)])]


def _taken(at: Operands) -> list[Parts]:
    given, indices = at.only(), at.value(1)
    if indices is None:
        raise NotFollowedError
    return [np.take(given, indices, axis=at.node.attributes.get_int("axis", 0))]


def _multiplied(at: Operands) -> list[Parts]:
    if min(len(at.shape(0)), len(at.shape(1))) < 2:
        raise NotFollowedError
    left, right = (
        one if one is not None else np.zeros((1,) * len(at.shape(index)), np.uint8)
        for index, one in enumerate(at.parts[:2])
    )
    if not np.any(left & ZERO) and not np.any(right & ZERO):
        rows = np.bitwise_or.reduce(left & OF_PARTS, axis=-1, keepdims=True)
        columns = np.bitwise_or.reduce(right & OF_PARTS, axis=-2, keepdims=True)
        return [np.broadcast_to(rows | columns, at.made())]
    sides = [np.broadcast_to(one, at.shape(index)) for index, one in enumerate((left, right))]
    return [_without_zeros(*sides)]


def _without_zeros(left: Parts, right: Parts) -> Parts:
    """Return the matrix product, in which entries that are 0 contribute nothing."""
    counts = [(one & ZERO == 0).astype(np.float32) for one in (left, right)]
    found: list[Parts] = []
    for bit in (np.uint8(1 << index) for index in range(4)):
        has = [((one & bit) > 0).astype(np.float32) * count for one, count in zip((left, right), counts, strict=True)]
        here = np.matmul(has[0], counts[1]) + np.matmul(counts[0], has[1]) > 0
        found.append(here.astype(np.uint8) * bit)
    return found[0] | found[1] | found[2] | found[3]


_RULES: dict[str, Callable[[Operands], list[Parts]]] = {
    **dict.fromkeys(UNARY, _each),
    **dict.fromkeys(BROADCASTING, _together),
    **dict.fromkeys(set(REDUCTIONS) - INDEX_OPERATORS, _reduced),
    **dict.fromkeys(COPIES, _copied),
    **dict.fromkeys(NORMALIZING, _normalized),
    **dict.fromkeys(("Flatten", "Reshape", "Squeeze", "Unsqueeze"), _regrouped),
    "Add": _added,
    "Concat": _joined,
    "Expand": _expanded,
    "Gather": _taken,
    "MatMul": _multiplied,
    "Pad": _padded,
    "Slice": _cut,
    "Softmax": _softmax,
    "Split": _split,
    "Transpose": _transposed,
    "Where": _chosen,
}
