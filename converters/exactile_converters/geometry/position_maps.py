"""Maps that are computed from the image's size alone: coordinates, position encodings, numbers that follow the size.

In one pass such a map is computed from the sizes of the whole image, and the pixel at a place has its own value. A tile
gets its piece of it: what counts positions (Range) begins where the tile does; numbers are those of the whole image;
shapes that maps are spread to are the tile's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction

import onnx_ir as ir

from exactile_converters.geometry.probe import ELEMENTWISE

ALONG = {*ELEMENTWISE, "Concat", "Cos", "Identity", "Sin", "Squeeze", "Tan", "Transpose", "Unsqueeze"}
"""Operators whose piece is that of their operands' pieces."""

SPREADING = {"Expand", "Reshape"}
"""Their second operand is a shape: the tile's."""


SIZES = 3
"""The operand of a Resize that holds the sizes."""

RESIZE_MODES = {"align_corners", "asymmetric", "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel"}


@dataclass(frozen=True, slots=True)
class Growth:
    """The dimensions of a value that grow with the image: axis, and pixels of it for each of the image.

    ``rank`` is the number of all dimensions.
    """

    rank: int
    axes: Mapping[int, tuple[str, Fraction]]


def buildable(
    value: ir.Value, growth_of: Callable[[ir.Value], Growth | None], varies: Callable[[ir.Value], bool]
) -> bool:
    """Whether a tile's piece of ``value`` can be computed."""
    growth = growth_of(value)
    if growth is None:
        return False
    if not growth.axes:
        return True
    node = value.producer()
    if node is None or node.domain or not varies(value):
        return False
    operands = [operand for operand in node.inputs if operand is not None]
    if node.op_type == "Range":
        return len(growth.axes) == 1 and all(buildable(one, growth_of, varies) for one in operands)
    if node.op_type == "Resize":
        return _resizes_a_constant(node, growth, varies)
    if node.op_type in SPREADING:
        operands = operands[:1]
    known = node.op_type in ALONG or node.op_type in SPREADING or node.op_type == "ConstantOfShape"
    return known and all(buildable(one, growth_of, varies) for one in operands if node.op_type != "ConstantOfShape")


def _resizes_a_constant(node: ir.Node, growth: Growth, varies: Callable[[ir.Value], bool]) -> bool:
    """Such as learned positions, to sizes."""
    constant, sizes = node.inputs[0], node.inputs[SIZES] if len(node.inputs) > SIZES else None
    return (
        constant is not None
        and not varies(constant)
        and constant.dtype in (ir.DataType.FLOAT, None)
        and sizes is not None
        and not node.attributes.get_int("antialias", 0)
        and node.attributes.get_string("keep_aspect_ratio_policy", "stretch") == "stretch"
        and node.attributes.get_string("coordinate_transformation_mode", "half_pixel") in RESIZE_MODES
        and len(growth.axes) > 0
    )
