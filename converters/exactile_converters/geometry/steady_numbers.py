"""Find numbers that are equal at the two sizes of the walk, but not at all sizes.

The walk's images are large: values computed from their sizes may be rounded to the same number at both, as ``1 + 1 /
(height * width)`` is to 1 in float32. So constants that multiply or shift maps, and the like, are also checked for
small images and for very large ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import onnx_ir as ir

from exactile_converters.geometry.fact import Fact
from exactile_converters.geometry.feature_maps import SIZES_MAY_VARY, ForwardWalk
from exactile_converters.geometry.node_view import FREE_OF_SIZE, VARYING
from exactile_converters.geometry.obstacle import ObstacleError, obstacle_at
from exactile_converters.geometry.probe import Probe, without_repeats
from exactile_converters.geometry.rules.pixelwise import BROADCASTING

MULTIPLES = (1, 2, 4, 16)
"""Multiples of the smallest image that are checked; a network may need more pixels than the smallest has."""

LARGEST_PX = 1 << 20

Place = tuple[int, int]
ProbeAt = Callable[[Place], Probe]


def check_steady_numbers(
    walk: ForwardWalk, nodes: Sequence[ir.Node], probe_at: ProbeAt, *, base: int, smallest: Place
) -> None:
    """Add an obstacle for every node with a constant that changes with the size, but not between the walk's sizes.

    ``smallest`` is the (height, width) of the smallest image, of the walk's remainders modulo ``base``.
    """
    suspects = list(_suspects(walk, nodes))
    if not suspects or walk.obstacles:
        return
    y, x = smallest[0] % base, smallest[1] % base
    places = [(multiple * smallest[0], multiple * smallest[1]) for multiple in MULTIPLES]
    far = LARGEST_PX // base * base
    places += [(2 * base + y, 3 * base + x), (far + y, far + x)]
    probes = [probe_at(place) for place in places]
    for node, index in suspects:
        value = node.inputs[index]
        assert value is not None
        if not _alike([probe.of(value) for probe in probes]):
            walk.obstacles.append(obstacle_at(node, ObstacleError(VARYING.format(index), FREE_OF_SIZE)))


def _suspects(walk: ForwardWalk, nodes: Sequence[ir.Node]) -> Iterator[tuple[ir.Node, int]]:
    """Yield nodes that make maps, and which of their operands are constants that follow the size.

    Positions, masks and the operands of cyclic shifts are checked elsewhere.
    """
    for node in nodes:
        transfer = walk.transfers.get(node)
        if transfer is None or (node.op_type in SIZES_MAY_VARY and node.op_type not in BROADCASTING):
            continue
        if not transfer.flows:
            continue  # it fills a map: its operand is the shape
        for index, value in enumerate(node.inputs):
            known = index in (*transfer.positions, *transfer.masks) or transfer.shift is not None
            if value is not None and value.name in walk.varying and not known:
                yield node, index


def _alike(facts: Sequence[Fact | None]) -> bool:
    """Return whether all known values of one shape are the same, except for how often they are repeated."""
    known = [without_repeats(fact.value) for fact in facts if fact is not None and fact.value is not None]
    return all(
        np.array_equal(known[0], other, equal_nan=other.dtype.kind == "f")
        for other in known[1:]
        if other.shape == known[0].shape
    )
