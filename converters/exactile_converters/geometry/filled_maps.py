"""Maps filled with one number, as large as a map of the network, over which windows slide.

A partial convolution counts the pixels of each window that lie in the image: it slides a window of ones over a map of
ones, made to the size of its input and padded with zeros. The result depends only on the distance to the edges. Such a
map is walked as a feature map that no pixel of the image reaches: a tile fills it to its own size, and where the tile
ends within the image, the halo of the map excludes the difference, as for any other map.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from exactile_converters.geometry.node_view import Label, Labels
from exactile_converters.geometry.position_maps import ASKING, Growth
from exactile_converters.geometry.sliding import CONVOLUTIONS, POOLS

FILLING = {"ConstantOfShape": 0, "Expand": 1}
"""The operand that holds the shape, by operator."""

SLIDING = {*CONVOLUTIONS, *POOLS, "ConvTranspose"}


def filled_maps(nodes: Sequence[ir.Node], image: ir.Value) -> frozenset[ir.Node]:
    """Return the nodes that fill such maps: windows slide over values computed from them, and from no pixel of
    ``image``.

    ``nodes`` are in topological order.
    """
    from_pixels: set[ir.Value | None] = {image}
    fills: dict[ir.Value | None, frozenset[ir.Node]] = {}
    found: set[ir.Node] = set()
    for node in nodes:
        if node.op_type in ASKING:
            continue
        if any(value in from_pixels for value in node.inputs):
            from_pixels.update(node.outputs)
            continue
        made = frozenset[ir.Node]().union(*(fills.get(value, ()) for value in node.inputs))
        if node.op_type in SLIDING and not node.domain:
            found |= fills.get(node.inputs[0], frozenset())
        if _fills(node):
            made |= {node}
        if made:
            fills.update(dict.fromkeys(node.outputs, made))
    return frozenset(found)


def _fills(node: ir.Node) -> bool:
    """Return whether it repeats one number, in a shape that is computed."""
    if node.domain or node.op_type not in FILLING or _is_constant(node.inputs[FILLING[node.op_type]]):
        return False
    number = node.inputs[0] if node.op_type == "Expand" else None
    return number is None or (number.const_value is not None and number.const_value.size == 1)


def _is_constant(value: ir.Value | None) -> bool:
    return value is None or value.const_value is not None


def filled_labels(growth: Growth | None) -> Labels | None:
    """Return the axes of a filled map with this ``growth``; None where it does not grow along both axes of the image.

    Of dimensions that do not grow, the first is the batch.
    """
    if growth is None or sorted(axis for axis, _ in growth.axes.values()) != ["x", "y"]:
        return None
    labels: list[Label] = []
    for dim in range(growth.rank):
        if dim in growth.axes:
            labels.append("y" if growth.axes[dim][0] == "y" else "x")
        else:
            labels.append("c" if "n" in labels else "n")
    return tuple(labels)
