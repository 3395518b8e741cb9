"""A piece of what is computed from the image's size; see ``geometry.position_maps``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Protocol

import onnx

from exactile.contract import POSITION
from exactile_converters.geometry.node_view import Label
from exactile_converters.geometry.position_maps import SIZES, SPREADING, Growth
from exactile_converters.placed.lines import Arithmetic, MapLine
from exactile_converters.placed.place import Place
from exactile_converters.placed.resampling import Resampling
from exactile_converters.placed.resize import placed_resize

Sizes = list[int | Mapping[Label, MapLine]]
"""The dimensions of a feature map: numbers, or how they grow with the image along each axis that they hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Positions:
    """What of a network is computed from the image's size.

    ``operands``: their numbers, by the name of a node's first result. ``varying`` is what follows the size, ``growths``
    how, ``in_pieces`` what is made of the pieces of operands; ``sizes_of`` tells the dimensions of feature maps,
    ``asked`` those of the map that a Shape or Size node, given by its result, asks for.
    """

    operands: Mapping[str, tuple[int, ...]]
    varying: set[str]
    growths: Mapping[str, Growth]
    in_pieces: set[str]
    sizes_of: Callable[[str], Sizes]
    asked: Mapping[str, Sizes]


class Extent(Protocol):
    """Where a piece lies. Names are of int64 tensors of shape (1,), but for shapes."""

    def first(self, axis: str, scale: Fraction) -> str:
        """The first row (column) of the piece in the whole map."""

    def count(self, node: onnx.NodeProto, growth: Growth, dim: int) -> str:
        """How many there are of them along dimension ``dim`` of what ``node`` makes."""

    def shape(self, node: onnx.NodeProto, growth: Growth) -> str:
        """The shape of the piece of what ``node`` spreads."""


def resized_dims(node: onnx.NodeProto, rank: int) -> list[int]:
    """The dimensions that a Resize is told sizes of, in their order."""
    axes = next((attribute.ints for attribute in node.attribute if attribute.name == "axes"), range(rank))
    return [axis % rank for axis in axes]


@dataclass(slots=True, kw_only=True)
class Pieces:
    """Adds nodes that compute pieces. ``makers`` are the network's nodes by result; ``constant`` makes one known."""

    arithmetic: Arithmetic
    positions: Positions
    makers: Mapping[str, onnx.NodeProto]
    extent: Extent
    constant: Callable[[str], str]
    opset: int
    whole: dict[str, str]
    """What was computed for the whole image, by name."""
    _made: dict[str, str] = field(default_factory=dict)

    def of(self, name: str) -> str:
        """The piece of ``name``; all of it where it does not grow with the image."""
        growth = self.positions.growths.get(name)
        if growth is None or not growth.axes:
            return self._whole(name)
        if name not in self._made:
            self._made[name] = self._piece(name, growth)
        return self._made[name]

    def _whole(self, name: str) -> str:
        if name not in self.positions.varying or name not in self.makers:
            return self.constant(name) if name else ""
        if name not in self.whole:
            node = self.makers[name]
            asked = self.positions.asked.get(name)
            if asked is None:
                self.whole[name] = self._copy(node, [self._whole(one) for one in node.input])
            else:
                self.whole[name] = self._asked(node, asked)
        return self.whole[name]

    def _piece(self, name: str, growth: Growth) -> str:
        node = self.makers[name]
        if name not in self.positions.in_pieces:
            return self._of_line(node, growth)
        if node.op_type == "Resize":
            return self._resized(node, growth)
        if node.op_type == "ConstantOfShape":
            return self._copy(node, [self.extent.shape(node, growth)])
        if node.op_type in SPREADING:
            return self._copy(node, [self.of(node.input[0]), self.extent.shape(node, growth)])
        return self._copy(node, [self.of(one) for one in node.input])

    def _resized(self, node: onnx.NodeProto, growth: Growth) -> str:
        """A constant, such as learned positions, resized to the size of the whole image's map."""
        constant, sizes = self._whole(node.input[0]), self._whole(node.input[SIZES])
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        axes = resized_dims(node, growth.rank)
        places = [
            Place(
                dim=dim,
                begin=self.extent.first(axis, scale),
                count=self.extent.count(node, growth, dim),
                source=self.arithmetic.number(0),
                source_size=self.arithmetic.length(constant, dim),
                result_size=self.arithmetic.entry(sizes, axes.index(dim)),
                scale=None,
            )
            for dim, (axis, scale) in sorted(growth.axes.items())
        ]
        how = Resampling.of("Resize", self.opset, attributes)
        return placed_resize(self.arithmetic.nodes, constant, growth.rank, places, how)

    def _of_line(self, node: onnx.NodeProto, growth: Growth) -> str:
        """The part of what is computed for the whole image."""
        nodes, ((dim, (axis, scale)),) = self.arithmetic.nodes, growth.axes.items()
        first, count = self.extent.first(axis, scale), self.extent.count(node, growth, dim)
        line = self._whole(node.output[0])
        return nodes.add("Slice", [line, first, nodes.add("Add", [first, count]), self.arithmetic.number(dim)])

    def _asked(self, node: onnx.NodeProto, sizes: Sizes) -> str:
        """The shape of a feature map of the whole image, or the number of its entries."""
        nodes, entries = self.arithmetic.nodes, [self._size(size) for size in sizes]
        if node.op_type == "Size":
            return nodes.add("ReduceProd", [nodes.add("Concat", entries, axis=0)], keepdims=0)
        attributes = {attribute.name: attribute.i for attribute in node.attribute}
        kept = entries[attributes.get("start", 0) : attributes.get("end", len(entries))]
        return nodes.add("Concat", kept, axis=0)

    def _size(self, size: int | Mapping[Label, MapLine]) -> str:
        """Of a dimension: the product of the axes that it holds."""
        if isinstance(size, int):
            return self.arithmetic.number(size)
        along = [
            self.arithmetic.size(self.arithmetic.entry(POSITION, 1 if axis == "y" else 3), line)
            for axis, line in size.items()
        ]
        return along[0] if len(along) == 1 else self.arithmetic.nodes.add("Mul", along)

    def _copy(self, node: onnx.NodeProto, inputs: list[str]) -> str:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        return self.arithmetic.nodes.add(node.op_type, inputs, **attributes)
