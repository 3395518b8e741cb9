"""Resize, Upsample, and operators that move pixels between space and channels."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from fractions import Fraction

import numpy as np

from exactile_converters.geometry.node_view import SPATIAL, Label, NodeView, Operand
from exactile_converters.geometry.obstacle import ObstacleError, ShapesDoNotFitError
from exactile_converters.geometry.reach import Blocks, CoordinateMode, Interpolation, NearestMode, Reach, Window
from exactile_converters.geometry.registry import Flow, Transfer, rule
from exactile_converters.geometry.rules.convolution import spatial_labels
from exactile_converters.geometry.rules.placed_resampling import placed
from exactile_converters.geometry.single_precision import (
    falls_short,
    is_held,
    makes_whole_sizes,
    picks_clearly,
    picks_steadily,
)

COORDINATES: dict[str, CoordinateMode] = {
    "half_pixel": "half_pixel",
    "half_pixel_symmetric": "half_pixel",
    "pytorch_half_pixel": "half_pixel",
    "asymmetric": "asymmetric",
    "tf_half_pixel_for_nn": "tf_half_pixel_for_nn",
}
FIRST_OPSET_WITH_MODES = 11

ROUNDING: dict[str, NearestMode] = {
    "round_prefer_floor": "round_prefer_floor",
    "round_prefer_ceil": "round_prefer_ceil",
    "floor": "floor",
    "ceil": "ceil",
}


@rule("Resize", "Upsample")
def resize(node: NodeView) -> Transfer:
    """Interpolate by integer factors, the same anywhere in the image; else by taps that depend on the position."""
    operand, labels = node.feature()
    result = node.result()
    if (operand.small.shape, operand.large.shape) == (result.small.shape, result.large.shape):
        return Transfer(labels=(labels,), flows=(Flow(operand=0),))
    try:
        reach, reflected = _anywhere_alike(node, operand, result, dict(enumerate(labels)))
        return Transfer(labels=(labels,), flows=(Flow(operand=0, reach=reach, reflected=reflected),))
    except ObstacleError:
        found = placed(node, old=_is_old(node), given=_given(node, len(labels)))
        if found is None:
            raise
        return _axes_apart(node, operand, result, found)


def _axes_apart(node: NodeView, operand: Operand, result: Operand, found: Transfer) -> Transfer:
    """Return ``found``, of a placed node, with the shift-invariant reach along an axis that has one.

    What is read along one axis is the same whatever the image's size along the other.
    """
    (labels,), (flow,) = found.labels, found.flows
    reach, reflected = dict(flow.reach), dict(flow.reflected)
    for dim, label in enumerate(labels):
        with suppress(ObstacleError):
            along = _anywhere_alike(node, operand, result, {dim: label})
            reach.pop(label, None)  # an axis that keeps its size has none
            reach.update(along[0])
            reflected.update(along[1])
    return replace(found, flows=(replace(flow, reach=reach, reflected=reflected),))


def _given(node: NodeView, rank: int) -> dict[int, float]:
    """Return the given scales, by dimension; none where sizes are given, or where scales are computed from sizes."""
    operand = node.operand(1 if _is_old(node) else 2)
    facts = (operand.small, operand.large) if operand is not None else ()
    values = [fact.value.ravel() for fact in facts if fact.value is not None and fact.value.size]
    if len(values) < len(facts) or not facts:
        return {}
    axes = [axis % rank for axis in node.integers("axes", range(rank))]
    first, second = ([float(np.float32(scale)) for scale in value] for value in values)
    if first == second:
        return dict(zip(axes, first, strict=False))
    source, made = node.feature()[0], node.result()
    for place, axis in enumerate(axes):
        for scale, size, grown in zip((first[place], second[place]), source.sizes(axis), made.sizes(axis), strict=True):
            if np.float32(scale) != np.float32(grown) / np.float32(size):
                raise ObstacleError(
                    "its scale is computed from the image's size, and is not that of its sizes",
                    "Resize to a size, or by a constant factor",
                )
    return {}


def _anywhere_alike(
    node: NodeView, operand: Operand, result: Operand, axes: dict[int, Label]
) -> tuple[dict[Label, Reach], dict[Label, tuple[int, int]]]:
    """Interpolate (nearest, linear, cubic) by exact integer factors up or down: positions commute with shifts.

    Returns the reach, and the reflected pixels, along ``axes``, by dimension.
    """
    mode = _coordinates(node)
    factors = {dim: _factor(operand.sizes(dim), result.sizes(dim), label) for dim, label in axes.items()}
    reach: dict[Label, Reach] = {}
    reflected: dict[Label, tuple[int, int]] = {}
    for dim, label in axes.items():
        factor = factors[dim]
        _check_scale(node, dim, len(operand.small.shape or ()), factor)
        found = _interpolation(node, mode, factor)
        if label in SPATIAL and (factor != 1 or found.kind != "nearest"):
            reach[label] = found
        if mode == "pytorch_half_pixel" and factor < 1 and (found.kind != "nearest" or found.position(0) != 0):
            # A single output pixel is placed on the first input pixel: a tile must have two of them.
            reflected[label] = (factor.denominator, 0)
    return reach, reflected


def _coordinates(node: NodeView) -> str:
    mode = node.text("coordinate_transformation_mode", "asymmetric" if _is_old(node) else "half_pixel")
    if mode not in COORDINATES:
        raise ObstacleError(
            f"its coordinate mode {mode} makes every output position depend on the image size",
            "Use half_pixel (align_corners=False in the framework) and fine-tune or re-validate",
        )
    if node.integer("antialias", 0):
        raise ObstacleError("it resizes with antialiasing", "Resize without antialiasing")
    return mode


def _is_old(node: NodeView) -> bool:
    return node.op == "Upsample" or node.opset < FIRST_OPSET_WITH_MODES


def _interpolation(node: NodeView, mode: str, factor: Fraction) -> Interpolation:
    """Return the reach along one axis. An axis that keeps its size is read like the others, at integer positions."""
    kind = node.text("mode", "nearest")
    found = Interpolation(
        scale=factor,
        coordinates=COORDINATES[mode] if factor != 1 else "asymmetric",
        kind="linear" if kind in ("linear", "bilinear") else "cubic" if kind == "cubic" else "nearest",
        rounding=ROUNDING["floor" if _is_old(node) else node.text("nearest_mode", "round_prefer_floor")],
    )
    by_size = mode == "half_pixel_symmetric" and factor < 1 and not is_held(factor)
    if found.kind != "nearest":
        return replace(found, early=int(by_size or falls_short(factor, found.coordinates)))
    if by_size and not picks_clearly(found):
        raise ObstacleError(
            f"it picks every {factor.denominator}th pixel by positions that single precision rounds one way or the "
            "other by the image's size",
            "Use half_pixel, or reduce by a power of two",
        )
    if not by_size and not picks_steadily(found):
        raise ObstacleError(
            f"it picks every {factor.denominator}th pixel by positions that single precision rounds one way or "
            "the other from place to place",
            "Reduce by a slice with steps or by pooling, or by a power of two",
        )
    return found


def _check_scale(node: NodeView, dim: int, rank: int, factor: Fraction) -> None:
    """Check that the given scale, from which positions follow, is the factor that the sizes show."""
    operand = node.operand(1 if _is_old(node) else 2)
    axes = [axis % rank for axis in node.integers("axes", range(rank))]
    for fact in (operand.small, operand.large) if operand is not None else ():
        if fact.value is None or not fact.value.size or dim not in axes:
            continue
        given = np.float32(fact.value.ravel()[axes.index(dim)])
        if given != np.float32(float(factor)):
            raise ObstacleError(
                f"its scale is {given:.9g} and its output size that of {factor}: its positions drift from the pixels",
                "Resize by a whole factor up or down",
            )
        if factor < 1 and not makes_whole_sizes(factor):
            raise ObstacleError(
                f"its scale is {given:.9g}, and some multiples of {factor.denominator} pixels make a pixel less than "
                f"{factor} of them",
                "Resize by a power of two",
            )


def _factor(sizes: tuple[int, int], grown: tuple[int, int], label: Label) -> Fraction:
    factor = Fraction(grown[0], sizes[0])
    if grown[0] == grown[1] and sizes[0] != sizes[1]:
        raise ObstacleError(
            f"its output size along {label} is fixed: {sizes[0]} -> {grown[0]} but {sizes[1]} -> {grown[1]} pixels",
            "Export with dynamic height and width, and resize by a factor instead of to a size",
        )
    if Fraction(grown[1], sizes[1]) != factor:
        raise ObstacleError(
            f"its factor along {label} depends on the image's size: {sizes[0]} -> {grown[0]} but {sizes[1]} -> "
            f"{grown[1]} pixels",
            "Resize by a factor that is the same for all sizes",
        )
    if label not in ("y", "x") and factor != 1:
        raise ObstacleError("it resizes an axis that is not spatial", "Resize height and width only")
    if factor.numerator != 1 and factor.denominator != 1:
        raise ObstacleError(f"it resizes by {factor}, which is not a whole factor", "Use a whole factor up or down")
    return factor


@rule("DepthToSpace")
def depth_to_space(node: NodeView) -> Transfer:
    """Rearrange channels into blocks of pixels."""
    _, labels = node.feature()
    block = node.integer("blocksize", 1)
    reach: dict[Label, Reach] = {label: Blocks(factor=block) for label in spatial_labels(labels)}
    return Transfer(labels=(labels,), flows=(Flow(operand=0, reach=reach),))


@rule("SpaceToDepth")
def space_to_depth(node: NodeView) -> Transfer:
    """Rearrange blocks of pixels into channels; the image must consist of whole blocks."""
    operand, labels = node.feature()
    block = node.integer("blocksize", 1)
    for dim, label in enumerate(labels):
        if label in SPATIAL and any(size % block for size in operand.sizes(dim)):
            raise ShapesDoNotFitError(f"{operand.sizes(dim)[0]} rows or columns are no multiple of {block}")
    reach: dict[Label, Reach] = {label: Window(kernel=block, stride=block) for label in spatial_labels(labels)}
    return Transfer(labels=(labels,), flows=(Flow(operand=0, reach=reach),))
