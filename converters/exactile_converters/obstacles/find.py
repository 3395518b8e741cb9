"""Every obstacle of a network, by its cause and by kind: what stands in the way, then what passes take."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace

import onnx_ir as ir

from exactile_converters.from_onnx import Network
from exactile_converters.geometry.obstacle import Obstacle, ObstacleError, name_of, obstacle_at
from exactile_converters.geometry.rules.products import WINDOWED
from exactile_converters.geometry.sliding import CONVOLUTIONS, POOLS
from exactile_converters.geometry.trace import Traced
from exactile_converters.obstacles.attention import ASKING, Attention, Extent, attentions, computed_from
from exactile_converters.obstacles.causes import with_cause
from exactile_converters.obstacles.walk_past import Past, walk_past
from exactile_converters.passes.deploy import without_statistics
from exactile_converters.untrusted import understood

LAYOUT = frozenset("Concat Expand Flatten Gather Reshape Slice Split Squeeze Tile Transpose Unsqueeze".split())
"""Operators that only arrange pixels: one that is arranged for attention is no cause."""

LOOKS_AROUND = frozenset((*CONVOLUTIONS, *POOLS, "Resize", "Upsample"))
OWN = re.compile(r"'[^']*'|\d+")
"""Names and sizes, which nodes of one kind have of their own."""

MOST_NODES = 10_000
"""So many are looked at in search of the attention that pixels are arranged for."""


def find_obstacles(network: Network) -> tuple[Obstacle, ...]:
    """The obstacles of ``network``, which stays as it is; empty where it can be tiled.

    Those that stand in the way of passes come first, attention before the others; then statistics of the whole image,
    which passes find. Nodes of one kind are counted by the first one.
    """
    traced = network.trace()
    if traced.geometry is not None:
        return ()
    with understood(network.name):
        local, _ = without_statistics(network.copy())
        left = local.trace()
        in_the_way = _in_the_way(local, left) if left.geometry is None else ()
        return by_kind((*in_the_way, *_statistics(network, traced, {one.node for one in left.obstacles})))


def find_statistics(network: Network) -> tuple[Obstacle, ...]:
    """The obstacles of a ``network`` of which nothing is in the way of passes."""
    with understood(network.name):
        return by_kind(_statistics(network, network.trace(), set()))


def in_the_way(obstacles: Iterable[Obstacle]) -> tuple[Obstacle, ...]:
    """Those that passes do not take."""
    return tuple(one for one in obstacles if not one.statistic)


def by_kind(obstacles: Iterable[Obstacle]) -> tuple[Obstacle, ...]:
    """One obstacle for all of an operator and a reason, sizes apart, in the order of the first ones."""
    kinds: dict[tuple[str, str, bool], list[Obstacle]] = {}
    for one in obstacles:
        kinds.setdefault((one.op, OWN.sub("", one.reason), one.statistic), []).append(one)
    return tuple(
        replace(
            first,
            others=tuple(name for one in more for name in (one.node, *one.others)),
            consequences=tuple(follows for one in (first, *more) for follows in one.consequences),
        )
        for first, *more in kinds.values()
    )


def _past(network: Network, traced: Traced) -> Past:
    return walk_past(network.model, network.image, network.labels, network.channels, list(traced.nodes), traced.sizes)


def _statistics(network: Network, traced: Traced, left: set[str]) -> list[Obstacle]:
    """What passes take: the first ones of the walk that are not ``left``, and those behind that are of their kind."""
    past = _past(network, traced)
    found = {node: one for node, one in past.first.items() if not left or one.statistic}
    found |= {node: one for node, one in past.behind.items() if one.statistic}
    return [
        replace(found[node], statistic=True) for node in traced.nodes if node in found and name_of(node) not in left
    ]


def _in_the_way(network: Network, traced: Traced) -> list[Obstacle]:
    """What is left without statistics, by its cause; ``traced`` is the walk that ended at it."""
    past, maps = _past(network, traced), computed_from(network.image, traced.nodes)
    nodes = {name_of(node): node for node in traced.nodes}
    found: dict[ir.Node, Obstacle] = {}
    others = []
    for one in traced.obstacles:
        if one.node in nodes:
            at, cause = with_cause(nodes[one.node], one, past.probes, maps)
            found.setdefault(at, cause)
        else:
            others.append(one)
    behind = {node: one for node, one in past.behind.items() if not one.statistic and node not in found}
    attending = _attending(traced, past, found, maps)
    rest = {node: one for node, one in {**found, **behind}.items() if node not in attending}
    for node, one in found.items():
        if node in rest and (leads := _leads_to(node, one, attending)) is not None:
            attending[leads] = replace(attending[leads], consequences=(*attending[leads].consequences, one))
            del rest[node]
    order = {node: place for place, node in enumerate(traced.nodes)}

    def in_order(obstacles: Mapping[ir.Node, Obstacle]) -> list[Obstacle]:
        return [replace(obstacles[node], statistic=False) for node in sorted(obstacles, key=order.__getitem__)]

    return [*in_order(attending), *in_order(rest), *others]


def _attending(
    traced: Traced, past: Past, found: Mapping[ir.Node, Obstacle], maps: AbstractSet[ir.Value]
) -> dict[ir.Node, Obstacle]:
    """Attention between positions, by the node of its first product."""
    attending = {}
    for one in attentions(traced.nodes, maps):
        node, extent = one.scores, one.extent(past.probes)
        is_behind = any(value is not None and value.name in past.after for value in node.inputs)
        if extent != "fixed" and (node in found or is_behind):
            attending[node] = obstacle_at(node, _error(one, extent))
    return attending


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


def _leads_to(node: ir.Node, found: Obstacle, attending: Mapping[ir.Node, Obstacle]) -> ir.Node | None:
    """The attention that ``node`` arranges pixels for; None where it is an obstacle of its own."""
    if node.op_type not in LAYOUT or found.sizes_differ or found.statistic:
        return None
    waiting, seen = [node], {node}
    while waiting and len(seen) < MOST_NODES:
        for value in waiting.pop(0).outputs:
            for reader, _ in value.uses():
                if reader in attending:
                    return reader
                if reader not in seen and reader.op_type not in LOOKS_AROUND and reader.op_type not in ASKING:
                    seen.add(reader)
                    waiting.append(reader)
    return None
