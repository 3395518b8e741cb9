"""Padding and cropping."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from exactile_converters.geometry.node_view import MOST_ELEMENTS, Label, NodeView, Operand, is_spatial
from exactile_converters.geometry.obstacle import ObstacleError
from exactile_converters.geometry.reach import Mirror, Reach, Window
from exactile_converters.geometry.registry import Flow, Transfer, rule

UNBOUNDED = 2**31 - 1
"""Exporters write this, or more, for an open end."""

ANCHOR = "Crop a constant number of pixels from the edges"


@rule("Pad")
def pad(node: NodeView) -> Transfer:
    """Add (or crop) a constant number of pixels at each edge."""
    node.only_first_is_feature(("pads", "value", "axes"))
    operand, labels = node.feature()
    if node.text("mode", "constant") == "wrap":
        raise ObstacleError("it wraps around the image", "Pad with zeros, reflection or the edge")
    amounts = node.operand(1)
    pads = (
        [int(v) for v in amounts.constant("amount of padding").ravel()]
        if amounts is not None
        else list(node.integers("pads", ()))
    )
    axes_input = node.operand(3)
    axes = (
        [operand.axis(int(axis)) for axis in axes_input.constant("axes").ravel()]
        if axes_input is not None
        else list(range(operand.rank))
    )
    reach: dict[Label, Reach] = {
        labels[axis]: Window(pad=pads[i]) for i, axis in enumerate(axes) if is_spatial(labels[axis])
    }
    if "yx" in reach and any(pads[i] or pads[i + len(axes)] for i, axis in enumerate(axes) if labels[axis] == "yx"):
        raise ObstacleError("it pads flattened rows and columns", "Keep height and width as axes of their own")
    reflected: dict[Label, tuple[int, int]] = {
        labels[axis]: (pads[i], pads[i + len(axes)])
        for i, axis in enumerate(axes)
        if node.text("mode", "constant") == "reflect"
    }
    return Transfer(labels=(labels,), flows=(Flow(operand=0, reach=reach, reflected=reflected),))


@rule("Slice")
def slice_(node: NodeView) -> Transfer:
    """Slice channels in any way; the image by a constant crop from the edges, to every s-th pixel, or reversed."""
    node.only_first_is_feature(("start", "end", "axes", "step"))
    if any(bound is not None and bound.by_statistics for bound in node.operands[1:]):
        raise ObstacleError("where it begins or ends is computed from pixel values", ANCHOR)
    operand, labels = node.feature()
    result = node.result()
    reach: dict[Label, Reach] = {}
    for axis, starts, step in _axes(node, operand):
        if not is_spatial(labels[axis]):
            continue
        if labels[axis] == "yx":
            raise ObstacleError("it cuts flattened rows and columns", "Keep height and width as axes of their own")
        if step < 1:
            reach[labels[axis]] = _flip(operand, result, axis, labels[axis], step)
            continue
        sizes, kept = operand.sizes(axis), result.sizes(axis)
        firsts = {
            max(0, min(size, start + size if start < 0 else start)) for size, start in zip(sizes, starts, strict=True)
        }
        if len(firsts) != 1 or (sizes[1] - sizes[0]) != (kept[1] - kept[0]) * step or _ends_in_reach(node, axis):
            raise ObstacleError(f"its crop along {labels[axis]} is not tied to the image's edges", ANCHOR)
        reach[labels[axis]] = Window(stride=step, pad=-firsts.pop())
    return Transfer(labels=(labels,), flows=(Flow(operand=0, reach=reach),))


def _flip(operand: Operand, result: Operand, axis: int, label: Label, step: int) -> Mirror:
    """Reverse all pixels of an axis."""
    if step != -1 or operand.sizes(axis) != result.sizes(axis):
        raise ObstacleError(
            f"it reverses a part of the image along {label}, or leaves out pixels", "Reverse all pixels, or none"
        )
    return Mirror(size=operand.sizes(axis)[0])


def _axes(node: NodeView, operand: Operand) -> list[tuple[int, tuple[int, int], int]]:
    """Return (axis, start at both probes, step) of each sliced axis."""
    if node.opset < 10:
        starts = [(start, start) for start in node.integers("starts", ())]
        axes = node.integers("axes", tuple(range(len(starts))))
        return [(operand.axis(axis), start, 1) for axis, start in zip(axes, starts, strict=True)]
    first, second = _both(node.operand(1))
    listed = node.operand(3)
    axes = tuple(int(a) for a in listed.constant("axes").ravel()) if listed is not None else tuple(range(first.size))
    stepped = node.operand(4)
    steps = [int(s) for s in stepped.constant("step").ravel()] if stepped is not None else [1] * first.size
    return [(operand.axis(axis), (int(first[i]), int(second[i])), steps[i]) for i, axis in enumerate(axes)]


def _ends_in_reach(node: NodeView, axis: int) -> bool:
    """Return whether it ends at a fixed pixel that lies only in images larger than the probed ones."""
    operand, _ = node.feature()
    if node.opset < 10:
        return False
    first, second = _both(node.operand(2))
    place = [sliced for sliced, _, _ in _axes(node, operand)].index(axis)
    return bool(first[place] == second[place] and operand.sizes(axis)[1] < first[place] < UNBOUNDED)


def _both(operand: Operand | None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    if (
        operand is None
        or operand.small.value is None
        or operand.large.value is None
        or operand.small.value.size > MOST_ELEMENTS
    ):
        raise ObstacleError("where it begins or ends is not known before it runs", ANCHOR)
    return operand.small.value.ravel(), operand.large.value.ravel()
