"""The parts of a network that need the position of a tile or strip as an input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from exactile_converters.geometry.node_view import SPATIAL, is_spatial
from exactile_converters.geometry.position_maps import ASKING, Building
from exactile_converters.geometry.trace import Traced
from exactile_converters.placed.find import PlacedNode, line_of, placed_nodes, position_operands
from exactile_converters.placed.pieces import Positions, Sizes


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """Operators whose taps depend on the position, and operands that are computed from the image's size."""

    placed: Mapping[ir.Node, PlacedNode] = field(default_factory=dict)
    positions: Positions | None = None

    def __bool__(self) -> bool:
        return bool(self.placed) or self.positions is not None

    def asks(self, node: ir.Node, operand: int) -> bool:
        """Return whether ``node`` gets the position, so that ``operand`` does not pass the tile's own size to it."""
        name = node.outputs[0].name or ""
        given = self.positions.operands.get(name, ()) if self.positions is not None else ()
        return node in self.placed or operand in given


def told_of(traced: Traced) -> Told:
    """Return those of a network that was traced at all sizes that it accepts."""
    return Told(placed=placed_nodes(traced), positions=_positions(traced))


def _positions(traced: Traced) -> Positions | None:
    operands = position_operands(traced)
    if not operands:
        return None
    walk = traced.walk

    def sizes_of(name: str) -> Sizes:
        feature = traced.features[name]
        return [
            {axis: line_of(traced, name, axis) for axis in SPATIAL if axis in label} if is_spatial(label) else size
            for label, size in zip(feature.labels, feature.shape, strict=True)
        ]

    building = Building(
        growth_of=lambda value: walk.growths.get(value.name or ""), varies=lambda value: value.name in walk.varying
    )
    made = [value for node in traced.nodes for value in node.outputs if value.name in walk.growths]
    varied = {value.name or "": building.varied(value) for value in made}
    return Positions(
        operands=operands,
        varying=walk.varying,
        growths=walk.growths,
        in_pieces={value.name or "" for value in made if building.in_pieces(value)},
        varied={name: dims for name, dims in varied.items() if dims is not None},
        sizes_of=sizes_of,
        asked={
            node.outputs[0].name or "": _asked_for(node, sizes_of(node.inputs[0].name or ""))
            for node in traced.nodes
            if node.op_type in ASKING and node.inputs[0] is not None and node.inputs[0].name in traced.features
        },
    )


def _asked_for(node: ir.Node, sizes: Sizes) -> Sizes:
    """Return the dimensions that a Shape node returns, or whose product a Size node does."""
    return sizes[node.attributes.get_int("start", 0) : node.attributes.get_int("end", len(sizes))]
