"""Where the first pixel of each feature map lies in the image.

Where the result has lost or gained pixels relative to the image, the graph shows at which end: a window of extent ``e =
(k-1)*d + 1``, stride ``s`` and ``p`` pixels of padding before loses ``(e-s)/2 - p`` pixels at its beginning, from its
input's first pixel to the centre of what its first output represents; a crop is a window with ``e = s = 1`` and
negative padding; transposed windows do the reverse. Losses add up along the graph.

A result as large as its share of the image (``image size * scale``) lies at 0: its pixels correspond to the image's by
index, as in training, however the operators pad; and so do all feature maps on the way.

Where ``e - s`` is odd, the count is off by half a pixel, and a pixel is lost at one end or the other. The map's size
shows the total loss: it is split as evenly as possible, first for this operator, then for the network so far, then by
losing nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import ceil, floor

import onnx_ir as ir

from exactile_converters.geometry.feature_maps import FeatureMap, ForwardWalk
from exactile_converters.geometry.node_view import Label
from exactile_converters.geometry.reach import Reach, TransposedWindow, Window


def origins(walk: ForwardWalk, nodes: Sequence[ir.Node], result: FeatureMap, axis: Label) -> dict[str, Fraction]:
    """Return the position of each map's first pixel along ``axis``, in image pixels; ``nodes`` in topological order.

    Where paths with different shifts meet, the one counts that splits the loss most evenly.
    """
    by_index = _lost(result, axis) == 0
    found = {name: Fraction(0) for name in list(walk.features)[:1]}
    for node in nodes:
        transfer = walk.transfers.get(node)
        flows = transfer.flows if transfer is not None else ()
        sources = [(flow, name) for flow in flows if (name := _name(node, flow.operand)) in found]
        made = [walk.features[value.name] for value in node.outputs if value.name in walk.features]
        for feature in made if sources else ():
            if axis in feature.scale:
                ways = [
                    found[name] + _loss(flow.along(axis), walk.features[name], feature, found[name], axis)
                    for flow, name in sources
                ]
                lost = _lost(feature, axis)
                found[feature.name] = Fraction(0) if by_index and lost == 0 else _most_even(ways, lost)
    return found


def _most_even(ways: list[Fraction], lost: Fraction) -> Fraction:
    return min(ways, key=lambda way: (abs(2 * way - lost), abs(way)))


def _name(node: ir.Node, operand: int) -> str:
    value = node.inputs[operand]
    return value.name or "" if value is not None else ""


def _lost(feature: FeatureMap, axis: Label) -> Fraction:
    """Return the image pixels lost at both ends together; negative where pixels are added."""
    return -feature.constant[axis] / feature.scale[axis]


def _loss(reach: Reach, operand: FeatureMap, result: FeatureMap, origin: Fraction, axis: Label) -> Fraction:
    """Return the image pixels that one operator loses at the beginning."""
    match reach:
        case Window(kernel=kernel, stride=stride, dilation=dilation, pad=pad):
            exact, unit = _middle(kernel, stride, dilation) - pad, 1 / operand.scale[axis]
        case TransposedWindow(kernel=kernel, stride=stride, dilation=dilation, pad=pad):
            exact, unit = pad - _middle(kernel, stride, dilation), 1 / result.scale[axis]
        case _:
            return Fraction(0)
    total = _lost(result, axis)
    here = (total - _lost(operand, axis)) / unit

    def unevenness(choice: int) -> tuple[Fraction, Fraction, int]:
        return abs(2 * choice - here), abs(2 * (origin + choice * unit) - total), abs(choice)

    return min((floor(exact), ceil(exact)), key=unevenness) * unit


def _middle(kernel: int, stride: int, dilation: int) -> Fraction:
    return Fraction((kernel - 1) * dilation + 1 - stride, 2)
