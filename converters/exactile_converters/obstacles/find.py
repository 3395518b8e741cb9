"""Find every obstacle of a network, by cause and kind: those that prevent passes, then statistics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import onnx_ir as ir

from exactile_converters.geometry.obstacle import Obstacle, name_of
from exactile_converters.geometry.trace import Traced
from exactile_converters.networks.network import Network
from exactile_converters.obstacles.attending import arranged_for, attending
from exactile_converters.obstacles.attention import computed_from
from exactile_converters.obstacles.causes import with_cause
from exactile_converters.obstacles.kinds import by_kind
from exactile_converters.obstacles.walk_past import Past, walk_past
from exactile_converters.onnx_files.untrusted import understood
from exactile_converters.passes.deploy import without_statistics


def find_obstacles(network: Network) -> tuple[Obstacle, ...]:
    """Return the obstacles of ``network``, which is not modified; empty where it can be tiled.

    Those that prevent passes come first, attention before the others; then statistics of the whole image, which passes
    compute. For a network without its statistics (``without_statistics``), only the former. The first node of a kind
    counts the others. Raises ModelError for a graph that contradicts itself.
    """
    traced = network.trace()
    if traced.geometry is not None:
        return ()
    with understood(network.name):
        local, taken = (network, network.also) if network.also else without_statistics(network.copy())
        left = local.trace()
        if left.obstacles and all(one.op == "output" for one in left.obstacles):  # the result itself is a statistic
            local, left, taken = network, traced, ()
        past = _past(local, left) if left.geometry is None else None
        stopping = _stopping(local, left, past) if past is not None else []
        around = past if past is not None and not taken else _past(network, traced)
        return by_kind((*stopping, *_statistics(around, {one.node for one in left.obstacles})))


def find_statistics(network: Network) -> tuple[Obstacle, ...]:
    """Return the obstacles of a ``network`` that has none to passes."""
    with understood(network.name):
        return by_kind(_statistics(_past(network, network.trace()), set()))


def _past(network: Network, traced: Traced) -> Past:
    return walk_past(network.model, network.image, network.labels, network.channels, list(traced.nodes), traced.sizes)


def _statistics(past: Past, left: set[str]) -> list[Obstacle]:
    """Return the statistics: the first ones of the walk that are not ``left``, and later ones of the same kind."""
    found = {node: one for node, one in past.first.items() if not left or one.statistic}
    found |= {node: one for node, one in past.behind.items() if one.statistic}
    taken = [node for node in past.nodes if node in found and name_of(node) not in left]
    return [replace(found[node], statistic=True) for node in taken]


def _stopping(network: Network, traced: Traced, past: Past) -> list[Obstacle]:
    """Return what is left without statistics, by cause; ``traced`` is the walk that stopped, ``past`` went further."""
    maps = computed_from(network.image, traced.nodes)
    nodes = {name_of(node): node for node in traced.nodes}
    found: dict[ir.Node, Obstacle] = {}
    outside = []
    for one in traced.obstacles:
        if one.node in nodes:
            at, cause = with_cause(nodes[one.node], one, past.probes, maps)
            found.setdefault(at, cause)
        else:
            outside.append(one)
    attention = attending(past, found.keys(), maps)
    found |= {node: one for node, one in past.behind.items() if not one.statistic and node not in found}
    rest = {}
    for node, one in found.items():
        leads = arranged_for(node, one, attention)
        if leads is not None:
            attention[leads] = replace(attention[leads], consequences=(*attention[leads].consequences, one))
        elif node not in attention:
            rest[node] = one
    return [*_in_order(attention, past), *_in_order(rest, past), *outside]


def _in_order(found: Mapping[ir.Node, Obstacle], past: Past) -> list[Obstacle]:
    return [replace(found[node], statistic=False) for node in past.nodes if node in found]
