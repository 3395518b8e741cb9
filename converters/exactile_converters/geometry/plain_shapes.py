"""Infer shapes of the most common operators, fast enough for many image sizes.

These rules use only sizes. They are used for a node only after they once agreed with ONNX's shape inference, which
checks everything else, for inputs of the same types and ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from exactile_converters.geometry.sliding import CONVOLUTIONS, POOLS, made_shape

Shape = tuple[int, ...]

UNCHANGED = (
    "Abs BatchNormalization Cast Ceil Clip Dropout Elu Erf Exp Floor Gelu GroupNormalization HardSigmoid HardSwish "
    "Identity InstanceNormalization LayerNormalization LeakyRelu Log LogSoftmax Mish Neg Not Reciprocal Relu Round "
    "Selu Sigmoid Softmax Softplus Softsign Sqrt Tanh"
).split()
"""Operators whose result has the shape of their first operand."""

BROADCAST = "Add And Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean Min Mul Or Pow Sub Sum Where".split()


def plain_shape(node: ir.Node, shapes: Sequence[Shape | None]) -> Shape | None:
    """Return the first output's shape from the operands'; None where there is no rule, or the shapes do not fit."""
    rule = _RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    if rule is None or not shapes:
        return None
    try:
        shape = rule(node, shapes)
    except (ValueError, IndexError):
        return None
    return shape if shape is not None and min(shape, default=1) > 0 else None


def resized_shape(node: ir.Node, shapes: Sequence[Shape | None], values: Sequence[NDArray[Any] | None]) -> Shape | None:
    """Return the shape of a Resize of all axes, to known sizes or by known factors; None for others."""
    scales, sizes = ([*values, None, None, None][place] for place in (2, 3))
    if node.domain not in ("", "ai.onnx") or shapes[0] is None or node.attributes.keys() & {"axes"}:
        return None
    if sizes is not None and node.attributes.get_string("keep_aspect_ratio_policy", "stretch") == "stretch":
        shape = tuple(int(size) for size in sizes)
    elif scales is not None and len(scales) == len(shapes[0]):
        # In single precision, as ONNX's shape inference multiplies.
        shape = tuple(int(np.float32(size) * np.float32(scale)) for size, scale in zip(shapes[0], scales, strict=True))
    else:
        return None
    return shape if len(shape) == len(shapes[0]) and min(shape, default=1) > 0 else None


def _unchanged(_node: ir.Node, shapes: Sequence[Shape | None]) -> Shape | None:
    return shapes[0]


def _broadcast(_node: ir.Node, shapes: Sequence[Shape | None]) -> Shape | None:
    return tuple(np.broadcast_shapes(*(shape for shape in shapes if shape is not None)))


def _joined(node: ir.Node, shapes: Sequence[Shape | None]) -> Shape | None:
    parts = [shape for shape in shapes if shape is not None]
    axis = node.attributes.get_int("axis", 0)
    axis += len(parts[0]) if axis < 0 else 0
    if len({(*shape[:axis], *shape[axis + 1 :]) for shape in parts}) != 1:
        return None
    return (*parts[0][:axis], sum(shape[axis] for shape in parts), *parts[0][axis + 1 :])


def _transposed(node: ir.Node, shapes: Sequence[Shape | None]) -> Shape | None:
    shape = shapes[0] or ()
    return tuple(shape[dim] for dim in node.attributes.get_ints("perm", range(len(shape))[::-1]))


def _windows(node: ir.Node, shapes: Sequence[Shape | None]) -> Shape | None:
    return made_shape(node, dict(enumerate(shapes)))


def _shuffled(node: ir.Node, shapes: Sequence[Shape | None]) -> Shape | None:
    """Infer DepthToSpace and SpaceToDepth."""
    count, channels, *space = shapes[0] or ()
    block = node.attributes.get_int("blocksize", 1)
    if node.op_type == "DepthToSpace":
        return (count, channels // block**2, *(size * block for size in space)) if channels % block**2 == 0 else None
    if any(size % block for size in space):
        return None
    return (count, channels * block ** len(space), *(size // block for size in space))


_RULES: Mapping[str, Callable[[ir.Node, Sequence[Shape | None]], Shape | None]] = {
    **dict.fromkeys(UNCHANGED, _unchanged),
    **dict.fromkeys(BROADCAST, _broadcast),
    **dict.fromkeys((*POOLS, *CONVOLUTIONS, "ConvTranspose"), _windows),
    **dict.fromkeys(("DepthToSpace", "SpaceToDepth"), _shuffled),
    "Concat": _joined,
    "Transpose": _transposed,
}
