"""A piece of what is computed from the image's size; see ``geometry.position_maps``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Protocol

import numpy as np
import onnx

from exactile.contract import POSITION
from exactile_converters.geometry.position_maps import SIZES, SPREADING, Growth
from exactile_converters.placed.lines import Arithmetic, MapLine
from exactile_converters.placed.place import Place
from exactile_converters.placed.resampling import Resampling
from exactile_converters.placed.resize import placed_resize

Sizes = list[int | MapLine]
"""The dimensions of a feature map: numbers, or how they grow, along y and then x."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Positions:
    """What of a network is computed from the image's size.

    ``operands``: their numbers, by the name of a node's first result. ``varying`` is what follows the size, ``growths``
    how; ``sizes_of`` tells the dimensions of feature maps.
    """

    operands: Mapping[str, tuple[int, ...]]
    varying: set[str]
    growths: Mapping[str, Growth]
    sizes_of: Callable[[str], Sizes]


class Extent(Protocol):
    """Where a piece lies. Names are of int64 tensors of shape (1,), but for shapes."""

    def first(self, axis: str, scale: Fraction) -> str:
        """The first row (column) of the piece in the whole map."""

    def count(self, node: onnx.NodeProto, dim: int, axis: str, scale: Fraction) -> str:
        """How many there are of them along dimension ``dim`` of what ``node`` makes."""

    def shape(self, node: onnx.NodeProto, growth: Growth) -> str:
        """The shape of the piece of what ``node`` spreads."""


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
            shape = node.op_type == "Shape"
            self.whole[name] = (
                self._shape(node) if shape else self._copy(node, [self._whole(one) for one in node.input])
            )
        return self.whole[name]

    def _piece(self, name: str, growth: Growth) -> str:
        node = self.makers[name]
        if node.op_type == "Range":
            return self._counted(node, growth)
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
        axes = [axis % growth.rank for axis in attributes.get("axes", range(growth.rank))]
        places = [
            Place(
                dim=dim,
                begin=self.extent.first(axis, scale),
                count=self.extent.count(node, dim, axis, scale),
                source=self.arithmetic.number(0),
                source_size=self.arithmetic.length(constant, dim),
                result_size=self.arithmetic.entry(sizes, axes.index(dim)),
                scale=None,
            )
            for dim, (axis, scale) in sorted(growth.axes.items())
        ]
        how = Resampling.of("Resize", self.opset, attributes)
        return placed_resize(self.arithmetic.nodes, constant, growth.rank, places, how)

    def _counted(self, node: onnx.NodeProto, growth: Growth) -> str:
        """Range, from where the piece begins."""
        nodes, ((axis, scale),) = self.arithmetic.nodes, growth.axes.values()
        start, _, step = (self._whole(one) for one in node.input)
        zero, one = (self._scalar(self.arithmetic.number(value)) for value in (0, 1))
        numbers = nodes.add("Range", [zero, self._scalar(self.extent.count(node, 0, axis, scale)), one])
        places = nodes.add("CastLike", [nodes.add("Add", [numbers, self.extent.first(axis, scale)]), step])
        return nodes.add("Add", [nodes.add("Mul", [places, step]), start])

    def _scalar(self, value: str) -> str:
        nodes = self.arithmetic.nodes
        return nodes.add("Reshape", [value, nodes.constant(np.zeros(0, np.int64))])

    def _shape(self, node: onnx.NodeProto) -> str:
        """That of a feature map of the whole image."""
        wholes, entries = iter((1, 3)), []
        for size in self.positions.sizes_of(node.input[0]):
            if isinstance(size, int):
                entries.append(self.arithmetic.number(size))
            else:
                entries.append(self.arithmetic.size(self.arithmetic.entry(POSITION, next(wholes)), size))
        attributes = {attribute.name: attribute.i for attribute in node.attribute}
        kept = entries[attributes.get("start", 0) : attributes.get("end", len(entries))]
        return self.arithmetic.nodes.add("Concat", kept, axis=0)

    def _copy(self, node: onnx.NodeProto, inputs: list[str]) -> str:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        return self.arithmetic.nodes.add(node.op_type, inputs, **attributes)
