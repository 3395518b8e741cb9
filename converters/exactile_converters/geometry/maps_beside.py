"""Obstacles for maps whose pixels are not counted like the image's: flipped ones, and those that no pixel reaches."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from exactile_converters.geometry.feature_maps import ForwardWalk
from exactile_converters.geometry.mirrored import FLIP_BACK, Axes, flips
from exactile_converters.geometry.obstacle import ObstacleError, obstacle_at


def check_flips(walk: ForwardWalk, nodes: Sequence[ir.Node], output: ir.Value, *, with_statistics: bool) -> None:
    """Add obstacles to ``walk`` if a flip is not undone in ``output``, or is not known to be.

    ``with_statistics`` says that statistics of the whole image are computed in addition to the output.
    """
    name = output.name or ""
    left = sorted(walk.mirrored.get(name, Axes()))
    reason = f"the output is still flipped along {' and '.join(left)}" if left else ""
    if walk.mirrored and not walk.obstacles and not reason:
        feature = walk.features.get(name)
        axes = Axes().union(*walk.mirrored.values())
        if with_statistics:
            reason = (
                "statistics of the whole image are taken beside it, whose zones are those of maps that no flip moves"
            )
        elif feature is not None and any(feature.constant[axis] for axis in axes if axis in feature.constant):
            reason = "the output has lost or gained pixels at its edges, and beside flips it is not known at which"
    for node in flips(walk.transfers, nodes) if reason else ():
        walk.obstacles.append(obstacle_at(node, ObstacleError(f"it flips the image, and {reason}", FLIP_BACK)))


def check_filled_maps(walk: ForwardWalk, nodes: Sequence[ir.Node]) -> None:
    """Add an obstacle to ``walk``, if it has none, for the first map that no pixel reaches.

    For networks with statistics of the whole image: their passes may keep maps and begin at them.
    """
    filled = next((node for node in nodes if node in walk.transfers and not walk.transfers[node].flows), None)
    if filled is not None and not walk.obstacles:
        error = ObstacleError(
            "windows slide over the map that it fills, and statistics of the image are taken beside it",
            "Export the network without normalisation over the image, or run it in one pass",
        )
        walk.obstacles.append(obstacle_at(filled, error))
