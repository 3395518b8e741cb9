"""Result shapes of operators that ONNX Runtime has beyond ONNX, which ONNX's shape inference does not know.

Most belong to its own domain; layer normalisation has the name of ONNX's domain at every opset.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto

from exactile_converters.geometry.sliding import RUNTIME_DOMAIN, made_shape

Shape = tuple[int, ...]
Known = tuple[int, Shape]
"""Element type and shape."""

Given = Sequence[Known | None]


def made_by_runtime(node: ir.Node, given: Given, opset: int) -> list[Known] | None:
    """Return element type and shape of each output, from the inputs'; None for operators that ONNX has at ``opset``.

    Raises ValueError where the shapes do not fit each other.
    """
    if node.op_type in NORMALIZATIONS and not node.domain:
        known_to_onnx = onnx.defs.has(node.op_type) and opset >= onnx.defs.get_schema(node.op_type).since_version
        return None if known_to_onnx else _normalized(node, given)
    rule = _MADE.get(node.op_type) if node.domain == RUNTIME_DOMAIN else None
    if rule is None:
        return None
    if not given or given[0] is None:
        raise ValueError(f"{node.op_type} has no input")
    return [rule(node, given)]


NORMALIZATIONS = frozenset({"LayerNormalization", "SimplifiedLayerNormalization"})


def _of(given: Given, index: int) -> Known:
    found = given[index] if index < len(given) else None
    if found is None:
        raise ValueError(f"input {index} is missing")
    return found


def _normalized(node: ir.Node, given: Given) -> list[Known]:
    """Return the result, and the statistics of the normalisation, if they are outputs."""
    dtype, shape = _of(given, 0)
    axis = node.attributes.get_int("axis", -1) % max(1, len(shape))
    reduced = (*shape[:axis], *(1 for _ in shape[axis:]))
    return [(dtype, shape), *((TensorProto.FLOAT, reduced) for _ in node.outputs[1:])]


def _first(_node: ir.Node, given: Given) -> Known:
    return _of(given, 0)


def _quantized(_node: ir.Node, given: Given) -> Known:
    zero_point = given[2] if len(given) > 2 else None
    return zero_point[0] if zero_point is not None else TensorProto.UINT8, _of(given, 0)[1]


def _dequantized(_node: ir.Node, given: Given) -> Known:
    return _of(given, 1)[0], _of(given, 0)[1]


def _broadcast(*operands: int) -> Callable[[ir.Node, Given], Known]:
    """Broadcast the shapes; the type is that of the last of ``operands``."""

    def rule(_node: ir.Node, given: Given) -> Known:
        found = [_of(given, index) for index in operands]
        return found[-1][0], np.broadcast_shapes(*(shape for _, shape in found))

    return rule


def _concatenated(node: ir.Node, given: Given) -> Known:
    parts = [_of(given, index) for index in range(2, len(given), 3)]
    dtype, first = parts[0]
    axis = node.attributes.get_int("axis", 0) % len(first)
    for _, shape in parts:
        if len(shape) != len(first) or any(
            a != b for dim, (a, b) in enumerate(zip(shape, first, strict=True)) if dim != axis
        ):
            raise ValueError(f"shapes {first} and {shape} cannot be joined along axis {axis}")
    return dtype, (*first[:axis], sum(shape[axis] for _, shape in parts), *first[axis + 1 :])


def _pooled(node: ir.Node, given: Given) -> Known:
    dtype, shape = _of(given, 0)
    made, last = made_shape(node, {0: shape}), node.attributes.get_int("channels_last", 0)
    if made is None or last:
        raise ValueError(f"a window over {shape} that cannot be placed")
    return dtype, made


def _product(node: ir.Node, given: Given) -> Known:
    dtype, left = _of(given, 0)
    _, right = _of(given, 1)
    if node.attributes.get_int("transA", 0) and len(left) > 1:
        left = (*left[:-2], left[-1], left[-2])
    if node.attributes.get_int("transB", 0) and len(right) > 1:
        right = (*right[:-2], right[-1], right[-2])
    row, column = left[:-1][-1:], right[-1:] if len(right) > 1 else ()
    if left[-1] != right[-2:][0]:
        raise ValueError(f"{left} cannot be multiplied by {right}")
    return dtype, (*np.broadcast_shapes(left[:-2], right[:-2]), *row, *column)


_MADE: dict[str, Callable[[ir.Node, Given], Known]] = {
    **dict.fromkeys(("BiasGelu", "FastGelu", "Gelu", "QuickGelu"), _first),
    **dict.fromkeys(("QLinearLeakyRelu", "QLinearSigmoid", "QLinearSoftmax"), _first),
    **dict.fromkeys(("QLinearAdd", "QLinearMul"), _broadcast(0, 3)),
    "DequantizeLinear": _dequantized,
    "FusedMatMul": _product,
    "QLinearAveragePool": _pooled,
    "QLinearConcat": _concatenated,
    "QLinearWhere": _broadcast(0, 4, 1),
    "QuantizeLinear": _quantized,
    "TransposeMatMul": _product,
}
