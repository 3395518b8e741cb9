"""The tile graph of a network with placed operators: the tile's position in the image is an input.

Every map of a tile begins where its share of the image does: a tile that begins at pixel ``a``, a multiple of the
stride, holds rows ``a * scale`` and following of each map, as many as for an image of the tile's size. A placed
operator counts the rows of its result in the whole map, whose size follows from the image's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from exactile.contract import POSITION
from exactile_converters.geometry.node_view import SPATIAL
from exactile_converters.geometry.position_maps import SIZES, Growth
from exactile_converters.placed.find import PlacedAxis, PlacedNode
from exactile_converters.placed.lines import Arithmetic
from exactile_converters.placed.pieces import Pieces, Positions, resized_dims
from exactile_converters.placed.place import Place
from exactile_converters.placed.resampling import Resampling
from exactile_converters.placed.resize import placed_resize


def place_in_tile(
    model: onnx.ModelProto, image: str, placed: Mapping[str, PlacedNode], positions: Positions | None = None
) -> None:
    """Replace placed operators of a tile's graph, given by the name of their result; ``image`` (H, W, C) is its input.

    ``positions`` are operands that are computed from the image's size.

    The graph gets a further input, ``exactile.contract.POSITION``.
    """
    graph = model.graph
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    nodes = Added()
    arithmetic = Arithmetic(nodes)
    pieces = None
    if positions is not None:
        pieces = Pieces(
            arithmetic=arithmetic,
            positions=positions,
            makers={name: node for node in graph.node for name in node.output},
            extent=_OfTile(arithmetic),
            constant=lambda name: name,
            opset=opset,
            whole={},
        )
    for node in graph.node:
        found = placed.get(node.output[0])
        if positions is not None and pieces is not None:
            for index in positions.operands.get(node.output[0], ()):
                node.input[index] = pieces.of(node.input[index])
        if found is None:
            nodes.made.append(node)
            continue
        places = [
            _place(arithmetic, image, index, found.axes[axis])
            for index, axis in enumerate(SPATIAL)
            if axis in found.axes
        ]
        how = resampling_of(node, opset)
        made = placed_resize(nodes, node.input[0], found.rank, places, how, element_type=found.dtype)
        nodes.answer(made, node.output[0])
    finish(graph, nodes)


@dataclass(frozen=True, slots=True)
class _OfTile:
    """Implements ``Extent`` for the whole tile. Counting and expanding nodes in its graph already have its size."""

    arithmetic: Arithmetic

    def first(self, axis: str, scale: Fraction) -> str:
        return self.arithmetic.scaled(self.arithmetic.entry(POSITION, 0 if axis == "y" else 2), scale)

    def count(self, node: onnx.NodeProto, growth: Growth, dim: int) -> str:
        if node.op_type == "Resize":
            return self.arithmetic.entry(node.input[SIZES], resized_dims(node, growth.rank).index(dim))
        return self.arithmetic.length(node.output[0], dim)

    def shape(self, node: onnx.NodeProto, growth: Growth) -> str:  # noqa: ARG002 -- strips ask for it
        return str(node.input[-1])


def resampling_of(node: onnx.NodeProto, opset: int) -> Resampling:
    """Return how a Resize or Upsample node resamples."""
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    return Resampling.of(node.op_type, opset, attributes)


def _place(arithmetic: Arithmetic, image: str, index: int, axis: PlacedAxis) -> Place:
    """Return a tile's part of operand and result along the image's dimension ``index``."""
    first, whole = (arithmetic.entry(POSITION, 2 * index + which) for which in (0, 1))
    return Place(
        dim=axis.dim,
        begin=arithmetic.scaled(first, axis.result.scale),
        count=arithmetic.size(arithmetic.length(image, index), axis.result),
        source=arithmetic.scaled(first, axis.operand.scale),
        source_size=arithmetic.size(whole, axis.operand),
        result_size=arithmetic.size(whole, axis.result),
        scale=axis.scale,
        most_taps=axis.most_taps,
    )


def finish(graph: onnx.GraphProto, nodes: Added) -> None:
    """Replace the graph's nodes by ``nodes``, without unused ones, and add the input."""
    kept = list[onnx.NodeProto]()
    read = {value.name for value in graph.output}
    for node in reversed(nodes.made):
        if read.intersection(node.output):
            read.update(node.input)
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(nodes.constants.values())
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in read]:
        graph.initializer.remove(tensor)
    for value in [value for value in graph.value_info if value.name not in read]:
        graph.value_info.remove(value)
    if all(value.name != POSITION for value in graph.input):
        graph.input.append(position_input())


def position_input() -> onnx.ValueInfoProto:
    """Return the graph input for a tile's position: int64 (4,)."""
    return helper.make_tensor_value_info(POSITION, onnx.TensorProto.INT64, [4])


class Added:
    """Nodes of a graph in order, and new constants; implements ``lines.Nodes``."""

    def __init__(self) -> None:
        self.made: list[onnx.NodeProto] = []
        self.constants: dict[bytes, onnx.TensorProto] = {}
        self._count = 0

    def add(self, op: str, inputs: Sequence[str], **attributes: Any) -> str:
        name = self._fresh()
        self.made.append(helper.make_node(op, inputs, [name], name=f"{name}_{op}", **attributes))
        return name

    def constant(self, array: NDArray[Any]) -> str:
        key = f"{array.dtype}{array.shape}".encode() + array.tobytes()
        if key not in self.constants:
            self.constants[key] = numpy_helper.from_array(np.ascontiguousarray(array), self._fresh())
        return self.constants[key].name

    def answer(self, made: str, name: str) -> None:
        """Give the result ``made`` the ``name`` that it has in the graph."""
        self.made.append(helper.make_node("Identity", [made], [name], name=f"{name}_placed"))

    def _fresh(self) -> str:
        self._count += 1
        return f"placed_{self._count}"
