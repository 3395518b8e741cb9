"""Maps that are flipped relative to the image, by a flip that another one undoes.

Test-time augmentation flips the image, runs the network, and flips the result back. Pixels of a flipped map are counted
from the image's far edge. A tile that begins at a multiple of the stride, with the image's length modulo the stride, is
after the flip a piece of the flipped image that begins at a multiple of the stride, too; so everything between two
flips is computed on the piece as on the whole, with its halo on the other side. This holds where all maps that a node
reads are flipped along the same axes, and where the result is not flipped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from exactile_converters.geometry.node_view import SPATIAL, Label
from exactile_converters.geometry.obstacle import ObstacleError
from exactile_converters.geometry.reach import Mirror, Placed
from exactile_converters.geometry.registry import Transfer

Axes = frozenset[Label]
"""The axes along which a map is flipped."""

FLIP_BACK = "Flip the map back before it meets others, or leave the flip out"


def mirrored_axes(node: ir.Node, transfer: Transfer, mirrored: Mapping[str, Axes]) -> Axes:
    """Return the axes along which the result of ``node`` is flipped; ``mirrored`` has those of the maps that it reads.

    Raises ObstacleError where maps are flipped along different axes, or where the node acts differently on flipped
    ones.
    """
    found = {axis: set[bool]() for axis in SPATIAL}
    for flow in transfer.flows:
        value = node.inputs[flow.operand]
        source = mirrored.get(value.name or "", Axes()) if value is not None else Axes()
        for axis in SPATIAL:
            reach = flow.along(axis)
            found[axis].add((axis in source) != isinstance(reach, Mirror))
            if axis in source and (isinstance(reach, Placed) or axis in flow.reflected or transfer.positions):
                raise ObstacleError(
                    f"it depends on the position, or reflects pixels at the edges, in a map that is flipped along "
                    f"{axis}",
                    FLIP_BACK,
                )
    for axis, ways in found.items():
        if len(ways) > 1:
            raise ObstacleError(
                f"of the maps that it reads, some are flipped along {axis} and others are not: what meets here comes "
                "from opposite ends of the image",
                FLIP_BACK,
            )
    axes = frozenset(axis for axis, ways in found.items() if True in ways)
    if axes and any("yx" in labels for labels in transfer.labels):
        raise ObstacleError("it flattens the rows and columns of a map that is flipped", FLIP_BACK)
    return axes


def flips(transfers: Mapping[ir.Node, Transfer], nodes: Sequence[ir.Node]) -> list[ir.Node]:
    """Return the nodes that flip an axis of the image."""
    reaches = {
        node: [reach for flow in transfers[node].flows for reach in flow.reach.values()]
        for node in nodes
        if node in transfers
    }
    return [node for node, found in reaches.items() if any(isinstance(reach, Mirror) for reach in found)]
