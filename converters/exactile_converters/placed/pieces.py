"""Pieces of values that are computed from the image's size; see ``geometry.position_maps``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Protocol

import numpy as np
import onnx

from exactile.contract import POSITION
from exactile_converters.geometry.node_view import Label
from exactile_converters.geometry.position_maps import SIZES, SPREADING, Growth
from exactile_converters.placed.lines import Arithmetic, MapLine
from exactile_converters.placed.place import Place
from exactile_converters.placed.resampling import Resampling
from exactile_converters.placed.resize import placed_resize

Sizes = list[int | Mapping[Label, MapLine]]
"""The dimensions of a feature map: numbers, or how they grow with the image along each axis that they contain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Positions:
    """The values of a network that are computed from the image's size.

    ``operands``: their numbers, by the name of a node's first result. ``varying`` follow the size, as ``growths`` say;
    ``in_pieces`` are computed from pieces of operands; numbers and lines vary along the dimensions ``varied``.
    ``sizes_of`` has the dimensions of feature maps, ``asked`` those that Shape and Size nodes read, by their results.
    """

    operands: Mapping[str, tuple[int, ...]]
    varying: set[str]
    growths: Mapping[str, Growth]
    in_pieces: set[str]
    varied: Mapping[str, frozenset[int]]
    sizes_of: Callable[[str], Sizes]
    asked: Mapping[str, Sizes]


class Extent(Protocol):
    """Where a piece lies. Names are of int64 tensors of shape (1,), except for shapes."""

    def first(self, axis: str, scale: Fraction) -> str:
        """Return the first row (column) of the piece in the whole map."""

    def count(self, node: onnx.NodeProto, growth: Growth, dim: int) -> str:
        """Return the number of rows (columns) along dimension ``dim`` of the result of ``node``."""

    def shape(self, node: onnx.NodeProto, growth: Growth) -> str:
        """Return the shape of the piece that ``node`` expands."""


def resized_dims(node: onnx.NodeProto, rank: int) -> list[int]:
    """Return the dimensions of which a Resize has sizes, in order."""
    axes = next((attribute.ints for attribute in node.attribute if attribute.name == "axes"), range(rank))
    return [axis % rank for axis in axes]


@dataclass(slots=True, kw_only=True)
class Pieces:
    """Adds nodes that compute pieces. ``makers`` are the network's nodes by result; ``constant`` adds a constant."""

    arithmetic: Arithmetic
    positions: Positions
    makers: Mapping[str, onnx.NodeProto]
    extent: Extent
    constant: Callable[[str], str]
    opset: int
    whole: dict[str, str]
    """Values computed for the whole image, by name: of length 1 along dimensions along which they do not vary."""
    _made: dict[str, str] = field(default_factory=dict)

    def of(self, name: str) -> str:
        """Return the piece of ``name``; all of it where it does not grow with the image."""
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
                self.whole[name] = self._copy(node, self._whole_operands(node))
            else:
                self.whole[name] = self._asked(node, asked)
        return self.whole[name]

    def _whole_operands(self, node: onnx.NodeProto) -> list[str]:
        growth = self.positions.growths[node.output[0]]
        if growth.axes and node.op_type in {"ConstantOfShape", "Expand"}:
            short = np.array([1 if dim in growth.axes else size for dim, size in enumerate(growth.shape)], np.int64)
            return [*map(self._whole, node.input[:-1]), self.arithmetic.nodes.constant(short)]
        operands = [self._whole(one) for one in node.input]
        if node.op_type == "CumSum":
            for dim in self.positions.varied[node.output[0]] - self.positions.varied.get(node.input[0], frozenset()):
                operands[0] = self._spread(operands[0], growth.rank, {dim: self._length(node.input[0], dim)})
        return operands

    def _spread(self, value: str, rank: int, lengths: Mapping[int, str]) -> str:
        one = self.arithmetic.number(1)
        shape = self.arithmetic.nodes.add("Concat", [lengths.get(dim, one) for dim in range(rank)], axis=0)
        return self.arithmetic.nodes.add("Expand", [value, shape])

    def _length(self, name: str, dim: int) -> str:
        """Return the whole length of a value that is the same all along ``dim``; see ``position_maps.MEASURED``."""
        node, growths = self.makers[name], self.positions.growths
        source = growths.get(node.input[0])
        if node.op_type == "ConstantOfShape":
            return self.arithmetic.entry(self._whole(node.input[0]), dim)
        if node.op_type == "Expand":
            missing = growths[name].rank - (source.rank if source is not None else 0)
            if source is None or dim - missing not in source.axes:
                skipped = growths[name].rank - growths[node.input[1]].shape[0]
                return self.arithmetic.entry(self._whole(node.input[1]), dim - skipped)
            dim -= missing
        return self._length(node.input[0], dim)

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
        """Resize a constant, such as learned positions, to the size of the whole image's map."""
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
        """Return the part of a value that is computed for the whole image."""
        nodes, name = self.arithmetic.nodes, node.output[0]
        found = self._whole(name)
        for dim in self.positions.varied[name]:
            first, count = self.extent.first(*growth.axes[dim]), self.extent.count(node, growth, dim)
            found = nodes.add("Slice", [found, first, nodes.add("Add", [first, count]), self.arithmetic.number(dim)])
        others = [dim for dim in growth.axes if dim not in self.positions.varied[name]]
        if not others:
            return found
        return self._spread(found, growth.rank, {dim: self.extent.count(node, growth, dim) for dim in others})

    def _asked(self, node: onnx.NodeProto, sizes: Sizes) -> str:
        """Return the shape of a feature map of the whole image, or the number of its entries."""
        nodes, entries = self.arithmetic.nodes, [self._size(size) for size in sizes]
        if node.op_type == "Size":
            return nodes.add("ReduceProd", [nodes.add("Concat", entries, axis=0)], keepdims=0)
        return nodes.add("Concat", entries, axis=0)

    def _size(self, size: int | Mapping[Label, MapLine]) -> str:
        """Return the size of a dimension: the product of the axes that it contains."""
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
