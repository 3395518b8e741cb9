"""Infer the scale of each feature map from its operators: image sizes are probed at multiples that suit all of them.

Measured scales are right only at such sizes: a pool by 7 of 2880 rows drops some, and seems to have another scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import lcm

import onnx_ir as ir

from exactile_converters.geometry.feature_maps import ForwardWalk
from exactile_converters.geometry.node_view import SPATIAL, Label
from exactile_converters.geometry.obstacle import ObstacleError, obstacle_at
from exactile_converters.geometry.reach import Blocks, Interpolation, Placed, Reach, TransposedWindow, Window
from exactile_converters.geometry.sliding import CONVOLUTIONS, POOLS

MOST_AXES = 8
LARGEST_STEP = 64
"""Larger numbers in attributes are not taken for steps before rules have read them."""


def written_steps(nodes: Sequence[ir.Node], largest: int) -> int:
    """Return a multiple of the steps in attributes and constants of ``nodes``, up to ``largest``."""
    multiple = 1
    for node in nodes:
        for step in _written(node):
            if 1 < step <= LARGEST_STEP and lcm(multiple, step) <= largest:
                multiple = lcm(multiple, step)
    return multiple


def _written(node: ir.Node) -> list[int]:
    match node.op_type:
        case op if op in CONVOLUTIONS or op in POOLS:
            return list(node.attributes.get_ints("strides", ()))
        case "SpaceToDepth":
            return [node.attributes.get_int("blocksize", 1)]
        case "Slice" if len(node.inputs) > 4 and node.inputs[4] is not None and node.inputs[4].const_value is not None:
            steps = node.inputs[4].const_value.numpy()
            return [int(step) for step in steps.ravel()[:4]]
        case "Resize" | "Upsample":
            return _reductions(node.inputs[2 if len(node.inputs) > 2 else -1])
    return []


def _reductions(scales: ir.Value | None) -> list[int]:
    """Return the numbers that must divide a size so that constant ``scales`` yield integer sizes."""
    if scales is None or scales.const_value is None or scales.const_value.size > MOST_AXES:
        return []
    given = [float(scale) for scale in scales.const_value.numpy().ravel()]
    return [Fraction(scale).limit_denominator(LARGEST_STEP).denominator for scale in given if scale > 0]


def stride_by_operators(walk: ForwardWalk, nodes: Sequence[ir.Node]) -> int:
    """Return the number of which the image must be a multiple so that no walked operator drops rows or columns."""
    return lcm(*(scale.denominator for axis in SPATIAL for scale in _scales(walk, nodes, axis).values()))


def check_scales(walk: ForwardWalk, nodes: Sequence[ir.Node], largest: int) -> None:
    """Add an obstacle unless measured scales are those of the operators, and the stride is at most ``largest``."""
    for axis in SPATIAL:
        expected = _scales(walk, nodes, axis)
        for node in nodes if not walk.obstacles else ():
            for value in node.outputs:
                scale = expected.get(value.name or "")
                if scale is None or (
                    scale.denominator <= largest and scale == walk.features[value.name or ""].scale[axis]
                ):
                    continue
                walk.obstacles.append(
                    obstacle_at(
                        node,
                        ObstacleError(
                            f"its result has {scale} times the rows or columns of the image, in steps of "
                            f"{scale.denominator} pixels",
                            "Reduce and enlarge by smaller factors",
                        ),
                    )
                )
                return


def _scales(walk: ForwardWalk, nodes: Sequence[ir.Node], axis: Label) -> dict[str, Fraction]:
    found = {name: Fraction(1) for name in list(walk.features)[:1]}
    for node in nodes:
        transfer = walk.transfers.get(node)
        for flow in transfer.flows if transfer is not None else ():
            value = node.inputs[flow.operand]
            if value is None or value.name not in found:
                continue
            scale = found[value.name] * _factor(flow.along(axis))
            for output in node.outputs:
                feature = walk.features.get(output.name or "")
                if feature is not None and axis in feature.scale:
                    found.setdefault(feature.name, scale)
    return found


def _factor(reach: Reach) -> Fraction:
    match reach:
        case Window(stride=stride):
            return Fraction(1, stride)
        case TransposedWindow(stride=stride):
            return Fraction(stride)
        case Blocks(factor=factor):
            return Fraction(factor)
        case Interpolation(scale=scale):
            return scale
        case Placed(ratio=ratio):
            return 1 / ratio
    return Fraction(1)
