"""Maps computed only from the image's size: coordinates, position encodings, numbers that follow the size.

In one pass such a map is computed from the sizes of the whole image, and the pixel at a place has its own value. A tile
gets its piece: numbers are those of the whole image; lines, which count or sum positions along one axis, are those of
the whole image, of which the tile takes its part; shapes to which maps are expanded are the tile's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import prod

import onnx_ir as ir

from exactile_converters.geometry.probe import ELEMENTWISE, FOLDABLE

ALONG = {*ELEMENTWISE, "Cos", "Identity", "Sin", "Squeeze", "Tan", "Transpose", "Unsqueeze"}
"""Operators whose piece is computed from their operands' pieces."""

SPREADING = {"Expand", "Reshape"}
"""Their second operand is a shape: the tile's."""

ASKING = {"Shape", "Size"}
"""Operators that read the size of a map."""

WHOLE = {*FOLDABLE, "ConstantOfShape", "Cos", "Expand", "Shape", "Sin", "Size", "Tan"}
"""Operators that are computed for the whole image, where their result is a number or a line."""

NUMBERS = set(
    "BatchNormalization Celu Conv Elu Gelu Gemm HardSigmoid HardSwish LayerNormalization LeakyRelu LogSoftmax MatMul "
    "Mish PRelu Selu Softmax Softplus Softsign Swish ThresholdedRelu".split()
)
"""Further operators that are computed for the whole image, where their operands and result are numbers, not lines."""

LINE_ELEMENTS = 8
"""Most numbers of a line for each position: every tile computes all of it."""

MEASURED = {"Cast", "ConstantOfShape", "CumSum", "Expand", "Identity"}
"""Operators whose results have a known length where they are the same all along it."""

SIZES = 3
"""The operand of a Resize that holds the sizes."""

RESIZE_MODES = {"align_corners", "asymmetric", "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel"}


@dataclass(frozen=True, slots=True)
class Growth:
    """The dimensions of a value that grow with the image: axis, and pixels for each pixel of the image.

    ``shape`` is that at one of the sizes.
    """

    shape: tuple[int, ...]
    axes: Mapping[int, tuple[str, Fraction]]

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def others(self) -> int:
        """Return the number of entries for each position."""
        return prod(size for dim, size in enumerate(self.shape) if dim not in self.axes)

    def blocks(self) -> list[tuple[int, object]]:
        """Return the number of entries between dimensions that grow, and these dimensions."""
        found, between = list[tuple[int, object]](), 1
        for dim, size in enumerate(self.shape):
            if dim in self.axes:
                found.append((between, (size, self.axes[dim])))
                between = 1
            else:
                between *= size
        return [*found, (between, None)]


@dataclass(slots=True, kw_only=True)
class Building:
    """Decides for which values a tile's piece can be computed.

    ``growth_of`` a value is None where that is unknown; ``varies`` returns whether a value follows the image's size.
    """

    growth_of: Callable[[ir.Value], Growth | None]
    varies: Callable[[ir.Value], bool]
    _in_pieces: dict[ir.Value, bool] = field(default_factory=dict)
    _varied: dict[ir.Value, frozenset[int] | None] = field(default_factory=dict)

    def has_piece(self, value: ir.Value) -> bool:
        growth = self.growth_of(value)
        if growth is None:
            return False
        return (bool(growth.axes) and self.in_pieces(value)) or self.varied(value) is not None

    def in_pieces(self, value: ir.Value) -> bool:
        """Return whether the piece is computed from the operands' pieces."""
        if value not in self._in_pieces:
            growth, node = self.growth_of(value), self._maker(value)
            self._in_pieces[value] = growth is not None and node is not None and self._is_of_pieces(node, growth)
        return self._in_pieces[value]

    def _is_of_pieces(self, node: ir.Node, growth: Growth) -> bool:
        source, op = node.inputs[0] if node.inputs else None, node.op_type
        if op == "ConstantOfShape":
            return True
        if op == "Resize":
            return self._resizes_a_constant(node, growth)
        if op == "Reshape":
            return self._keeps_order(source, growth) and self._have_pieces([source])
        if op == "Expand":
            return self._have_pieces([source])
        if op == "Concat":
            along = node.attributes.get_int("axis", 0) % growth.rank
            return along not in growth.axes and self._have_pieces(node.inputs)
        return (op in ALONG or (op == "Slice" and self._slices_others(node))) and self._have_pieces(node.inputs)

    def _maker(self, value: ir.Value) -> ir.Node | None:
        """Return the node with a standard operator and one result that computes ``value`` from the image's size."""
        node = value.producer()
        if node is None or node.domain or len(node.outputs) != 1 or not self.varies(value):
            return None
        return node

    def _have_pieces(self, values: Sequence[ir.Value | None]) -> bool:
        return all(self.has_piece(one) for one in values if one is not None)

    def varied(self, value: ir.Value) -> frozenset[int] | None:
        """Return the growing dimensions along which a number or line varies; None where it is neither.

        Such values are computed for the whole image, with size 1 along other dimensions that grow.
        """
        if not self.varies(value):
            return frozenset()
        if value not in self._varied:
            growth, node = self.growth_of(value), self._maker(value)
            found = self._varied_by(node, growth) if growth is not None and node is not None else None
            if found is not None and (
                len(found) > 1 or (found and growth is not None and growth.others > LINE_ELEMENTS)
            ):
                found = None
            self._varied[value] = found
        return self._varied[value]

    def _varied_by(self, node: ir.Node, growth: Growth) -> frozenset[int] | None:
        operands = [one for one in node.inputs if one is not None]
        varied = [dims for one in operands if (dims := self.varied(one)) is not None]
        grown = [known for one in operands if (known := self.growth_of(one)) is not None or not self.varies(one)]
        if node.op_type in NUMBERS and len(varied) == len(operands) and not any(map(self._grows, operands)):
            return frozenset() if not growth.axes else None
        if node.op_type not in WHOLE or len(varied) < len(operands) or len(grown) < len(operands):
            return None
        if node.op_type == "ConstantOfShape":
            return frozenset()
        if node.op_type in ELEMENTWISE or node.op_type == "Expand":
            count = 1 if node.op_type == "Expand" else len(operands)
            return frozenset(
                dim + growth.rank - known.rank
                for one, dims in zip(operands[:count], varied[:count], strict=True)
                if (known := self.growth_of(one)) is not None
                for dim in dims
            )
        if node.op_type in {"CumSum", "Slice"}:
            return self._varied_along(node, growth, varied[0])
        of_all = all(
            not self.varies(one) or dims == self._grows(one) for one, dims in zip(operands, varied, strict=True)
        )
        return frozenset(growth.axes) if of_all else None

    def _varied_along(self, node: ir.Node, growth: Growth, varied: frozenset[int]) -> frozenset[int] | None:
        """Return them for an operator along axes: a sum, or a part."""
        source = node.inputs[0]
        axes = self._axes(node, 1 if node.op_type == "CumSum" else 3, growth.rank)
        if source is None or axes is None:
            return None
        along = axes & self._grows(source)
        if node.op_type == "Slice":
            return varied & frozenset(growth.axes) if along <= varied else None
        maker = source.producer()
        known = along <= varied or (maker is not None and maker.op_type in MEASURED)
        return varied | along if known else None

    def _grows(self, value: ir.Value) -> frozenset[int]:
        growth = self.growth_of(value)
        return frozenset(growth.axes if growth is not None else ())

    def _axes(self, node: ir.Node, operand: int, rank: int) -> frozenset[int] | None:
        """Return the axes of an operator that has them as a constant; a Slice without axes acts on the first ones."""
        given = node.inputs[operand] if len(node.inputs) > operand else None
        if given is None:
            starts = self.growth_of(node.inputs[1]) if node.inputs[1] is not None else None
            return frozenset(range(starts.shape[0])) if starts is not None else None
        known = ir.convenience.get_const_tensor(given)
        return None if known is None else frozenset(int(axis) % rank for axis in known.numpy().ravel())

    def _keeps_order(self, operand: ir.Value | None, result: Growth) -> bool:
        """Return whether a Reshape keeps the growing dimensions, and the number of entries between them."""
        growth = self.growth_of(operand) if operand is not None else None
        return growth is not None and growth.blocks() == result.blocks()

    def _slices_others(self, node: ir.Node) -> bool:
        """Return whether a Slice acts only on dimensions that do not grow."""
        growth = self.growth_of(node.inputs[0]) if node.inputs[0] is not None else None
        axes = self._axes(node, 3, growth.rank) if growth is not None else None
        return growth is not None and axes is not None and axes.isdisjoint(growth.axes)

    def _resizes_a_constant(self, node: ir.Node, growth: Growth) -> bool:
        """Return whether it resizes a constant, such as learned positions, to sizes."""
        constant, sizes = node.inputs[0], node.inputs[SIZES] if len(node.inputs) > SIZES else None
        if constant is None or sizes is None or self.varies(constant) or self.varied(sizes) is None:
            return False
        given = self.growth_of(constant)
        return (
            given is not None
            and all(given.shape[dim] == growth.shape[dim] for dim in range(growth.rank) if dim not in growth.axes)
            and constant.dtype in (ir.DataType.FLOAT, None)
            and not node.attributes.get_int("antialias", 0)
            and node.attributes.get_string("keep_aspect_ratio_policy", "stretch") == "stretch"
            and node.attributes.get_string("coordinate_transformation_mode", "half_pixel") in RESIZE_MODES
        )
