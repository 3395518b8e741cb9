"""Attention between positions as an obstacle, and the operators that only arrange pixels for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet

import onnx_ir as ir

from exactile_converters.geometry.obstacle import Obstacle, ObstacleError, name_of, obstacle_at
from exactile_converters.geometry.rules.products import WINDOWED
from exactile_converters.geometry.sliding import CONVOLUTIONS, POOLS
from exactile_converters.obstacles.attention import ASKING, Attention, Extent, attentions
from exactile_converters.obstacles.walk_past import Past

LAYOUT = frozenset("Concat Expand Flatten Gather Reshape Slice Split Squeeze Tile Transpose Unsqueeze".split())
"""Operators that only arrange pixels: one that is arranged for attention is no cause."""

LOOKS_AROUND = frozenset((*CONVOLUTIONS, *POOLS, "Resize", "Upsample"))

MOST_NODES = 10_000
"""So many are looked at in search of the attention that pixels are arranged for."""


def attending(past: Past, found: AbstractSet[ir.Node], maps: AbstractSet[ir.Value]) -> dict[ir.Node, Obstacle]:
    """Attention between positions, by the node of its first product: among ``found`` obstacles, or behind one.

    ``maps`` are computed from the image's pixels.
    """
    obstacles = {}
    for one in attentions(past.nodes, maps):
        node, extent = one.scores, one.extent(past.probes)
        is_behind = any(value is not None and value.name in past.after for value in node.inputs)
        if extent != "fixed" and (node in found or is_behind):
            obstacles[node] = obstacle_at(node, _error(one, extent))
    return obstacles


def arranged_for(node: ir.Node, found: Obstacle, attention: Mapping[ir.Node, Obstacle]) -> ir.Node | None:
    """The ``attention`` that ``node`` only arranges pixels for; None where it is an obstacle of its own."""
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


def _error(attention: Attention, extent: Extent) -> ObstacleError:
    softmax = f"{attention.softmax.op_type} {name_of(attention.softmax)!r}"
    if extent == "grows":
        reason = (
            "it is attention between all positions: it multiplies the feature maps of all positions with each other, "
            f"and {softmax} weighs them, so that every pixel depends on all others"
        )
    else:
        reason = (
            f"it is attention between positions, which {softmax} weighs, and how many there are is not known before it "
            "runs, or written into the model for one image size"
        )
    return ObstacleError(reason, WINDOWED)
