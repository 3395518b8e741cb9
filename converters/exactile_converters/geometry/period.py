"""Find the period of graphs that use the image's size, and so may behave differently at other sizes.

A network that pads its image to a multiple of 16, and crops its result, pads nothing at the probed sizes, which are
multiples of 16. A tile of 40 rows gets other padding than the whole image, so its lower edge differs. Such a network is
tiled with tiles, and images, that are multiples of 16, whatever the stride of its feature maps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import onnx_ir as ir

from exactile_converters.geometry.feature_maps import ForwardWalk
from exactile_converters.geometry.obstacle import ObstacleError, obstacle_at

Walk = Callable[[int, int], ForwardWalk]
"""A walk at the probed sizes with this many additional rows and columns."""

ASKING = {"Shape", "Size"}
"""Operators that read the image's size. Without them, only the stride of feature maps matters."""


def settle_period(walk: ForwardWalk, nodes: Sequence[ir.Node], *, more: Walk, base: int, largest: int) -> None:
    """Set the period of ``walk``, which has no obstacles at multiples of ``base``; add an obstacle if above
    ``largest``.

    ``more`` walks at other sizes.
    """
    if walk.obstacles or not any(node.op_type in ASKING for node in nodes):
        return
    y, x = walk.stride("y"), walk.stride("x")
    other = walk
    for period in _divisors(base // max(y, x)):
        if period * max(y, x) > largest:
            break
        other = more(period * y, period * x)
        if first_difference(walk, other, nodes) is None:
            walk.period = period
            return
    node = first_difference(walk, other, nodes)
    if node is not None:
        walk.obstacles.append(
            obstacle_at(
                node,
                ObstacleError(
                    "it does something else for each size of the image, and a tile has another one",
                    "Pad and crop outside of the network, and export it without",
                ),
            )
        )


def _divisors(number: int) -> Iterator[int]:
    return (factor for factor in range(1, number + 1) if number % factor == 0)


def first_difference(walk: ForwardWalk, other: ForwardWalk, nodes: Sequence[ir.Node]) -> ir.Node | None:
    """Return the first node that treats images of other sizes differently."""
    for node in nodes:
        if walk.transfers.get(node) != other.transfers.get(node):
            return node
        for value in node.outputs:
            one, two = walk.features.get(value.name or ""), other.features.get(value.name or "")
            if (one is None) != (two is None):
                return node
            if one is not None and two is not None:
                grown = one.labels, one.scale, one.constant
                if grown != (two.labels, two.scale, two.constant):
                    return node
    return None
