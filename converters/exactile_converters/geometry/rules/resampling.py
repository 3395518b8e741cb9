"""Resize, Upsample, and moves between space and channels."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np

from exactile.geometry import Span
from exactile_converters.geometry.node_view import Label, NodeView
from exactile_converters.geometry.obstacle import ObstacleError
from exactile_converters.geometry.reach import Blocks, CoordinateMode, Interpolation, NearestMode, Reach, Window
from exactile_converters.geometry.registry import Flow, Transfer, rule
from exactile_converters.geometry.rules.convolution import spatial_labels

COORDINATES: dict[str, CoordinateMode] = {
    "half_pixel": "half_pixel",
    "half_pixel_symmetric": "half_pixel",
    "pytorch_half_pixel": "half_pixel",
    "asymmetric": "asymmetric",
    "tf_half_pixel_for_nn": "tf_half_pixel_for_nn",
}
LARGEST_SIDE_PX = 1 << 21
"""Positions are looked at up to here: no image has a longer side."""

ROUNDING: dict[str, NearestMode] = {
    "round_prefer_floor": "round_prefer_floor",
    "round_prefer_ceil": "round_prefer_ceil",
    "floor": "floor",
    "ceil": "ceil",
}


@rule("Resize", "Upsample")
def resize(node: NodeView) -> Transfer:
    """Nearest, linear and cubic interpolation by exact whole factors up or down."""
    operand, labels = node.feature()
    result = node.result()
    upsample = node.op == "Upsample" or node.opset < 11
    mode = node.text("coordinate_transformation_mode", "asymmetric" if upsample else "half_pixel")
    if mode not in COORDINATES:
        raise ObstacleError(
            f"its coordinate mode {mode} makes every output position depend on the image size",
            "Use half_pixel (align_corners=False in the framework) and fine-tune or re-validate",
        )
    if node.integer("antialias", 0):
        raise ObstacleError("it resizes with antialiasing", "Resize without antialiasing")
    kind = node.text("mode", "nearest")
    rounding = ROUNDING["floor" if upsample else node.text("nearest_mode", "round_prefer_floor")]
    reach: dict[Label, Reach] = {}
    for dim, label in enumerate(labels):
        factor = _factor(operand.sizes(dim), result.sizes(dim), label)
        _check_scale(node, dim, factor)
        if factor != 1:
            reach[label] = found = Interpolation(
                scale=factor,
                coordinates=COORDINATES[mode],
                kind="linear" if kind in ("linear", "bilinear") else "cubic" if kind == "cubic" else "nearest",
                rounding=rounding,
            )
            if (
                mode == "half_pixel_symmetric"
                and found.kind == "nearest"
                and factor.denominator & (factor.denominator - 1)
            ):
                raise ObstacleError(
                    f"it picks pixels by positions that float32 rounds by the image's size (scale {factor}, {mode})",
                    "Use half_pixel, or reduce by a power of two",
                )
            if mode == "pytorch_half_pixel":
                found = _with_two_outputs(found)
                reach[label] = found
            if found.kind == "nearest" and not picks_steadily(found):
                raise ObstacleError(
                    f"it picks every {factor.denominator}th pixel by positions that single precision rounds one way or "
                    "the other from place to place",
                    "Reduce by a slice with steps or by pooling, or by a power of two",
                )
    return Transfer(labels=(labels,), flows=(Flow(operand=0, reach=reach),))


def _with_two_outputs(reach: Interpolation) -> Interpolation:
    """pytorch_half_pixel puts a single output pixel elsewhere: a tile must make more, unless the image does not."""
    factor = reach.scale.denominator
    needed = reach.needed(Span(0, 1))
    same_place = reach.kind == "nearest" and needed.start == 0
    within = needed.start >= 0 and needed.stop <= factor and not same_place
    return replace(reach, spare=factor + 1 - needed.stop) if factor > 1 and within else reach


def _check_scale(node: NodeView, dim: int, factor: Fraction) -> None:
    """Positions follow the scale as it is given, which may round to the factor that the sizes show."""
    index = 1 if node.op == "Upsample" or node.opset < 11 else 2
    operand = node.operand(index)
    axes = node.integers("axes", ())
    for fact in (operand.small, operand.large) if operand is not None else ():
        if fact.value is None or not fact.value.size:
            continue
        if axes and dim not in axes:
            continue
        given = np.float32(fact.value.ravel()[axes.index(dim) if axes else dim])
        if given != np.float32(float(factor)):
            raise ObstacleError(
                f"its scale is {given:.9g} and its output size that of {factor}: its positions drift from the pixels",
                "Resize by a whole factor up or down",
            )


def picks_steadily(reach: Interpolation) -> bool:
    """Whether a nearest interpolation picks the same pixel of every period, computed in float32 as engines do.

    Where the exact position lies where rounding turns, a factor such as 1/7, which float32 cannot hold, decides at some
    positions for one pixel and at others for its neighbour: a tile with another origin picks another one.
    """
    period = reach.scale.denominator
    if period & (period - 1) == 0:
        return True
    output = np.arange(max(2, LARGEST_SIDE_PX // period), dtype=np.int64)
    given, half, scale = output.astype(np.float32), np.float32(0.5), np.float32(float(reach.scale))
    match reach.coordinates:
        case "asymmetric":
            position = given / scale
        case "half_pixel":
            position = (given + half) / scale - half
        case "tf_half_pixel_for_nn":
            position = (given + half) / scale
    match reach.rounding:
        case "floor":
            picked = np.floor(position)
        case "ceil":
            picked = np.ceil(position)
        case "round_prefer_floor":
            picked = np.ceil(position - half)
        case "round_prefer_ceil":
            picked = np.floor(position + half)
    phase = picked.astype(np.int64) - output * period
    return bool((phase == reach.needed(Span(0, 1)).start).all())


def _factor(sizes: tuple[int, int], grown: tuple[int, int], label: Label) -> Fraction:
    factor = Fraction(grown[0], sizes[0])
    if Fraction(grown[1], sizes[1]) != factor:
        raise ObstacleError(
            f"its output size along {label} is fixed: {sizes[0]} -> {grown[0]} but {sizes[1]} -> {grown[1]} pixels",
            "Export with dynamic height and width, and resize by a factor instead of to a size",
        )
    if label not in ("y", "x") and factor != 1:
        raise ObstacleError("it resizes an axis that is not spatial", "Resize height and width only")
    if factor.numerator != 1 and factor.denominator != 1:
        raise ObstacleError(f"it resizes by {factor}, which is not a whole factor", "Use a whole factor up or down")
    return factor


@rule("DepthToSpace")
def depth_to_space(node: NodeView) -> Transfer:
    """Channels become blocks of pixels."""
    _, labels = node.feature()
    block = node.integer("blocksize", 1)
    reach: dict[Label, Reach] = {label: Blocks(factor=block) for label in spatial_labels(labels)}
    return Transfer(labels=(labels,), flows=(Flow(operand=0, reach=reach),))


@rule("SpaceToDepth")
def space_to_depth(node: NodeView) -> Transfer:
    """Blocks of pixels become channels."""
    _, labels = node.feature()
    block = node.integer("blocksize", 1)
    reach: dict[Label, Reach] = {label: Window(kernel=block, stride=block) for label in spatial_labels(labels)}
    return Transfer(labels=(labels,), flows=(Flow(operand=0, reach=reach),))
