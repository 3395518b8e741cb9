"""Resize whose taps depend on the position in the image and on its size: bounds of their distance from their share.

A map of ``n1 = r * n2 + e`` pixels is resized to ``n2``, with ``r`` and ``e`` the same for all images of a remainder.
By the formulas of the ONNX Resize operator output ``i`` lies at ``a * i + b``; its distance from ``r * i`` is linear in
``i``, so it lies between those of the first and of the last pixel. For every size these are:

================  ==================  ==========================
coordinate mode   at the first pixel  at the last one
================  ==================  ==========================
half_pixel        (r - 1)/2 + e/2n2   (r - 1)/2 + e - e/2n2
align_corners     0                   r + e - 1
asymmetric        0                   e - e/n2
================  ==================  ==========================

``tf_crop_and_resize`` of the whole is placed like align_corners, but a single pixel lies in the middle.

Where the scale is given, and is not exactly 1/r, its drift over the longest map is added.
"""

from __future__ import annotations

from fractions import Fraction
from math import ceil

import numpy as np
from onnx import TensorProto

from exactile_converters.geometry.node_view import SPATIAL, Label, NodeView, Operand
from exactile_converters.geometry.obstacle import ObstacleError
from exactile_converters.geometry.reach import NearestMode, Placed, Reach
from exactile_converters.geometry.registry import Flow, Transfer
from exactile_converters.geometry.single_precision import LARGEST_SIDE_PX, makes_its_sizes

ROUNDING_ERROR_PX = Fraction(1, 4)
"""Positions are computed in float32: three roundings of 2^-24 each for maps of up to 2^20 pixels."""

MOST_DRIFT_PX = 2
"""A scale that drifts further from that of the sizes is a different one."""

SIZES = {"half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "tf_half_pixel_for_nn", "asymmetric"}
MODES = {*SIZES, "align_corners", "tf_crop_and_resize"}
TYPES: dict[str, set[int]] = {
    "nearest": set(),
    "linear": {TensorProto.FLOAT, TensorProto.FLOAT16},
    "cubic": {TensorProto.FLOAT, TensorProto.FLOAT16},
}
"""Types for which each kind is computed; nearest for all."""

RADIUS = {"linear": 1, "cubic": 2}


def placed(node: NodeView, *, old: bool, given: dict[int, float]) -> Transfer | None:
    """Return the transfer of a Resize or Upsample node for all positions; None where taps are not near their share.

    ``old`` operators count by ``asymmetric`` and round down; ``given`` are the scales by dimension, if it has any.
    """
    mode = node.text("coordinate_transformation_mode", "asymmetric" if old else "half_pixel")
    kind = {"bilinear": "linear"}.get(found := node.text("mode", "nearest"), found)
    operand, labels = node.feature()
    if not _is_covered(node, mode, kind):
        return None
    result = node.result()
    rounding: NearestMode = "floor" if old else node.text("nearest_mode", "round_prefer_floor")  # type: ignore[assignment]
    if kind != "nearest":
        rounding = "floor"
    antialias = bool(node.integer("antialias", 0)) and kind != "nearest"
    reach: dict[Label, Reach] = {}
    for dim, label in enumerate(labels):
        if label not in SPATIAL:
            if operand.sizes(dim) != result.sizes(dim):
                return None
            continue
        line = _Line.of(operand, result, dim)
        if line is None:
            return None
        early, late = line.drift(mode, given.get(dim))
        if dim in given and abs(_drift_of(given[dim], line.ratio)) > MOST_DRIFT_PX:
            raise ObstacleError(
                f"its scale is {given.get(dim, 0):.9g} and its output size that of {1 / line.ratio}: its positions "
                "drift from the pixels",
                "Resize to a size, or by a factor that sizes follow",
            )
        if dim in given and not makes_its_sizes(given[dim], 1 / line.ratio):
            raise ObstacleError(
                f"its scale is {given[dim]:.9g}, and how many pixels it makes is rounded now down, now up",
                "Resize to a size, or by a factor that single precision holds (1.5, 0.75)",
            )
        first, last = _taps(kind, line, antialias=antialias)
        last += int(old and kind == "nearest")  # they round up along axes that shrink
        reach[label] = Placed(
            ratio=line.ratio,
            early=early - ROUNDING_ERROR_PX,
            late=late + ROUNDING_ERROR_PX,
            first=first,
            last=last,
            rounding=rounding,
            given=given.get(dim),
        )
    return Transfer(labels=(labels,), flows=(Flow(operand=0, reach=reach),))


def _is_covered(node: NodeView, mode: str, kind: str) -> bool:
    operand, labels = node.feature()
    if mode == "tf_crop_and_resize":
        _check_region(node, rank=len(labels))
    if mode not in MODES or kind not in TYPES or (TYPES[kind] and operand.small.dtype not in TYPES[kind]):
        return False
    return node.text("keep_aspect_ratio_policy", "stretch") == "stretch"


def _check_region(node: NodeView, rank: int) -> None:
    """Raise where a part of the operand is resized, or one that depends on the image."""
    region = node.operand(1)
    advice = "Resize the whole map, or crop it by Slice before"
    if region is None:
        raise ObstacleError("it has no region to resize (roi)", advice)
    values = region.constant("region (roi)").ravel()
    axes = len(node.integers("axes", range(rank)))
    if not np.array_equal(values, [0.0] * axes + [1.0] * axes):
        raise ObstacleError(f"it resizes a part of its operand: the region (roi) {values.tolist()}", advice)


def _drift_of(given: float, ratio: Fraction) -> Fraction:
    """Return the drift of the longest map's last pixel by a scale that is not exactly 1 / ratio."""
    return (1 / Fraction(float(np.float32(given))) - ratio) * LARGEST_SIDE_PX


def _taps(kind: str, line: _Line, *, antialias: bool) -> tuple[int, int]:
    """Return the pixels beyond the one at or before the position."""
    if antialias:
        support = ceil(RADIUS[kind] * max(Fraction(1), line.ratio + max(line.excess, Fraction(0))))
        return -support - 1, support + 2
    return {"nearest": (0, 0), "linear": (0, 1), "cubic": (-1, 2)}[kind]


class _Line:
    """``ratio`` and ``excess``: an operand of ``ratio * n + excess`` pixels is resized to ``n``."""

    def __init__(self, ratio: Fraction, excess: Fraction) -> None:
        self.ratio, self.excess = ratio, excess

    @classmethod
    def of(cls, operand: Operand, result: Operand, dim: int) -> _Line | None:
        """Return the line; None where one of the two does not grow."""
        before, after = operand.sizes(dim), result.sizes(dim)
        if before[1] <= before[0] or after[1] <= after[0]:
            return None
        ratio = Fraction(before[1] - before[0], after[1] - after[0])
        return cls(ratio, before[0] - ratio * after[0])

    def drift(self, mode: str, given: float | None) -> tuple[Fraction, Fraction]:
        """Return the least and the greatest distance of a position from its share, for all sizes."""
        ratio, excess = self.ratio, self.excess
        if mode in {"align_corners", "tf_crop_and_resize"}:
            return min(Fraction(0), ratio + excess - 1), max(Fraction(0), ratio + excess - 1)
        more = Fraction(0)
        if given is not None:  # the excess then has no effect, but a scale that is not exactly the ratio does
            more = _drift_of(given, ratio)
        shift = {"asymmetric": Fraction(0), "tf_half_pixel_for_nn": ratio / 2}.get(mode, (ratio - 1) / 2)
        span = more if given is not None else excess
        low, high = shift + min(Fraction(0), span), shift + max(Fraction(0), span)
        if mode == "half_pixel_symmetric":  # the centre of the operand moves by the rounding of the size
            side = abs(excess) / 2 + 1
            low, high = low - side, high + side
        if mode == "pytorch_half_pixel":  # a single pixel lies at the first
            low, high = min(low, Fraction(0)), max(high, Fraction(0))
        return low, high
