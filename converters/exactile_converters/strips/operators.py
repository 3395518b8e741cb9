"""Rewrite each operator so that it computes some rows of its result from chunks of its operands.

Every operator runs on the rows it needs: with the whole network's padding at the image's true edges, and without
padding inside the image. So no row is invented, and no row is masked.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from exactile_converters.geometry.rules.pixelwise import BROADCASTING
from exactile_converters.strips.interpolation import resize
from exactile_converters.strips.moving import expand, pad, rearranged, reshape, sliced
from exactile_converters.strips.placed import placed
from exactile_converters.strips.positions import piece, position_operands
from exactile_converters.strips.refusal import StripError
from exactile_converters.strips.windows import WINDOWS, transposed, window
from exactile_converters.strips.work import Rewriter, Work, copy

BROADCAST = {*BROADCASTING, "BiasGelu", "FastGelu", "QLinearAdd", "QLinearMul", "QLinearWhere"}
"""Operators whose constants may have one entry for each pixel of the map."""


def rewrite(work: Work, at: Rewriter) -> list[str]:
    """Add the nodes that compute the rows of ``work``; return the names of the results."""
    op = work.node.op_type
    if work.node in at.told.placed:
        return [placed(work, at, at.told.placed[work.node])]
    if op in WINDOWS:
        return window(work, at)
    handler = _HANDLERS.get(op)
    return [handler(work, at)] if handler else _pixelwise(work, at)


def _pixelwise(work: Work, at: Rewriter) -> list[str]:
    """Rewrite pixelwise operators: each operand supplies exactly the rows of the result."""
    inputs = []
    if work.node.op_type == "MaxUnpool":
        raise StripError("MaxUnpool puts values where positions within one strip say")
    told = position_operands(work, at)
    for index, value in enumerate(work.node.inputs):
        if index in told and value is not None:
            inputs.append(piece(value.name or "", work, at))
        elif at.is_feature(value):
            inputs.append(at.rows(value, work.start, work.stop, work))
        elif work.node.op_type == "Concat":
            inputs.append(_spread(value, work, at))
        elif work.node.op_type in BROADCAST:
            inputs.append(at.uniform(value, work.result))
        else:
            inputs.append(at.parameter(value))
    return copy(work, at, inputs)


def _spread(value: ir.Value | None, work: Work, at: Rewriter) -> str:
    """Return a constant map with as many rows and columns as the maps with which it is joined."""
    other = next(v for v in work.node.inputs if at.is_feature(v))
    rows = at.build.rows(at.chunk(other), work.start, work.stop)
    labels, spatial = at.feature(other).labels, ("y", "x", "yx")
    shape = at.build.add("Shape", [rows])
    entries = [
        at.build.add("Slice", [shape, at.build.integers([dim]), at.build.integers([dim + 1])])
        if label in spatial
        else at.build.integers([1])
        for dim, label in enumerate(labels)
    ]
    target = at.build.add("Concat", entries, axis=0)
    return at.build.add("Expand", [at.uniform(value, work.result), target])


_HANDLERS: dict[str, Callable[[Work, Rewriter], str]] = {
    "ConvTranspose": transposed,
    "Resize": resize,
    "Upsample": resize,
    "DepthToSpace": rearranged,
    "SpaceToDepth": rearranged,
    "Flatten": rearranged,
    "Reshape": reshape,
    "Expand": expand,
    "Pad": pad,
    "Slice": sliced,
}
