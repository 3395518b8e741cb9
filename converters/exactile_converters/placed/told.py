"""What of a network must be told where a tile or strip lies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from exactile_converters.geometry.node_view import SPATIAL
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
        """Whether ``node`` is told, so that it takes nothing of the tile's own size by ``operand``."""
        name = node.outputs[0].name or ""
        given = self.positions.operands.get(name, ()) if self.positions is not None else ()
        return node in self.placed or operand in given


def told_of(traced: Traced) -> Told:
    """Of a network that was traced at all sizes that it takes."""
    return Told(placed=placed_nodes(traced), positions=_positions(traced))


def _positions(traced: Traced) -> Positions | None:
    operands = position_operands(traced)
    if not operands:
        return None
    image = next(iter(traced.features))

    def sizes_of(name: str) -> Sizes:
        """The image itself has another name in finished graphs than in the network."""
        feature = traced.features.get(name) or traced.features[image]
        return [
            line_of(traced, feature.name, label) if label in SPATIAL else size
            for label, size in zip(feature.labels, feature.shape, strict=True)
        ]

    walk = traced.walk
    return Positions(operands=operands, varying=walk.varying, growths=walk.growths, sizes_of=sizes_of)
