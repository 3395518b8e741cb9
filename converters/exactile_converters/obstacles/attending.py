"""Report attention between all positions as an obstacle, with the operators that only rearrange pixels for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet

import onnx_ir as ir

from exactile_converters.geometry.obstacle import Obstacle, ObstacleError, name_of, obstacle_at
from exactile_converters.geometry.rules.products import WINDOWED
from exactile_converters.geometry.sliding import CONVOLUTIONS, POOLS
from exactile_converters.obstacles.attention import ASKING, Attention, attentions
from exactile_converters.obstacles.walk_past import Past

LAYOUT = frozenset("Concat Expand Flatten Gather Reshape Slice Split Squeeze Tile Transpose Unsqueeze".split())
"""Operators that only rearrange pixels: one that rearranges them for attention is not a cause."""

LOOKS_AROUND = frozenset((*CONVOLUTIONS, *POOLS, "Resize", "Upsample"))

MOST_NODES = 10_000
"""Most nodes visited in search of the attention that pixels are rearranged for."""


def attending(past: Past, found: AbstractSet[ir.Node], maps: AbstractSet[ir.Value]) -> dict[ir.Node, Obstacle]:
    """Return attention between all positions, by the node of its first product: a ``found`` obstacle, or behind one.

    ``maps`` are computed from the image's pixels.
    """
    obstacles = {}
    for one in attentions(past.nodes, maps):
        node = one.scores
        is_behind = any(value is not None and value.name in past.after for value in node.inputs)
        if (node in found or is_behind) and one.is_between_all(past.probes):
            obstacles[node] = obstacle_at(node, _error(one))
    return obstacles


def arranged_for(node: ir.Node, found: Obstacle, attention: Mapping[ir.Node, Obstacle]) -> ir.Node | None:
    """Return the ``attention`` that ``node`` only rearranges pixels for; None where it is a separate obstacle."""
    if node.op_type not in LAYOUT or found.sizes_differ or not attention:
        return None
    waiting, seen = [node], {node}
    while waiting and len(seen) < MOST_NODES:
        for reader in _readers(waiting.pop(0)):
            if reader in attention:
                return reader
            if reader not in seen and reader.op_type not in LOOKS_AROUND and reader.op_type not in ASKING:
                seen.add(reader)
                waiting.append(reader)
    return None


def _readers(node: ir.Node) -> Iterable[ir.Node]:
    return (reader for value in node.outputs for reader, _ in value.uses())


def _error(attention: Attention) -> ObstacleError:
    softmax = f"{attention.softmax.op_type} {name_of(attention.softmax)!r}"
    return ObstacleError(
        "it is attention between all positions: it multiplies the feature maps of all positions with each other, and "
        f"{softmax} weighs them, so that every pixel depends on all others",
        WINDOWED,
    )
