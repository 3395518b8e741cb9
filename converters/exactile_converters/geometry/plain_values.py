"""Arithmetic of sizes, as exporters write it, in numpy: a few numbers at a time, at many image sizes.

It is used for a node only after it once agreed with ONNX's reference evaluator, for operands of the same types and
ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

Array = NDArray[Any]

MOST_NUMBERS = 64
"""Longer values are not sizes."""

NUMBERS = {ir.DataType.INT32, ir.DataType.INT64, ir.DataType.FLOAT}
"""Types in which sizes are computed."""


def plain_value(node: ir.Node, operands: Sequence[Array | None]) -> Array | None:
    """Return the result of ``node`` for ``operands``, None for omitted ones; None where there is no rule."""
    rule = _RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    given = [array for array in operands if array is not None]
    if rule is None or not given or any(array.size > MOST_NUMBERS for array in given):
        return None
    try:
        found = rule(node, operands)
    except (ValueError, IndexError, TypeError):
        return None
    return None if found is None else np.asarray(found)


def _gathered(node: ir.Node, operands: Sequence[Array | None]) -> Array | None:
    array, places = _two(operands)
    return np.take(array, places, axis=node.attributes.get_int("axis", 0))


def _joined(node: ir.Node, operands: Sequence[Array | None]) -> Array | None:
    return np.concatenate([array for array in operands if array is not None], axis=node.attributes.get_int("axis", 0))


def _widened(_node: ir.Node, operands: Sequence[Array | None]) -> Array | None:
    array, axes = _two(operands)
    return np.expand_dims(array, tuple(int(axis) for axis in axes.ravel()))


def _narrowed(_node: ir.Node, operands: Sequence[Array | None]) -> Array | None:
    array, axes = _two(operands)
    return np.squeeze(array, tuple(int(axis) for axis in axes.ravel()))


def _cut(_node: ir.Node, operands: Sequence[Array | None]) -> Array | None:
    """Slice forwards, along named axes."""
    array, starts, ends, axes, *more = operands
    steps = more[0] if more else None
    if array is None or starts is None or ends is None or axes is None or (steps is not None and (steps != 1).any()):
        return None
    index = [slice(None)] * array.ndim
    for start, end, axis in zip(starts.tolist(), ends.tolist(), axes.tolist(), strict=True):
        index[axis] = slice(start, end)
    return array[tuple(index)]


def _cast(node: ir.Node, operands: Sequence[Array | None]) -> Array | None:
    array, kind = operands[0], ir.DataType(node.attributes.get_int("to", 0))
    return array.astype(kind.numpy()) if array is not None and kind in NUMBERS and np.isfinite(array).all() else None


def _quotient(_node: ir.Node, operands: Sequence[Array | None]) -> Array | None:
    """Divide integers towards 0; for positive ones, that is down."""
    array, divisor = _two(operands)
    if array.dtype.kind == "f":
        return array / divisor if (divisor != 0).all() else None
    return array // divisor if (array >= 0).all() and (divisor > 0).all() else None


def _by(operation: Callable[..., Any]) -> Callable[[ir.Node, Sequence[Array | None]], Array | None]:
    return lambda _node, operands: operation(*operands)


def _two(operands: Sequence[Array | None]) -> tuple[Array, Array]:
    """Return two operands. Raises ValueError where they are missing."""
    array, other = operands
    if array is None or other is None:
        raise ValueError("an operand is left out")
    return array, other


_RULES: Mapping[str, Callable[[ir.Node, Sequence[Array | None]], Array | None]] = {
    "Add": _by(np.add),
    "Cast": _cast,
    "Ceil": _by(np.ceil),
    "Concat": _joined,
    "Div": _quotient,
    "Floor": _by(np.floor),
    "Gather": _gathered,
    "Identity": _by(np.asarray),
    "Mul": _by(np.multiply),
    "Slice": _cut,
    "Squeeze": _narrowed,
    "Sub": _by(np.subtract),
    "Unsqueeze": _widened,
}
