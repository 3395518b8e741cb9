"""The rows of placed operators: their taps depend on the strip's position in the image, and on the image's size."""

from __future__ import annotations

import onnx_ir as ir

from exactile.contract import POSITION
from exactile_converters.placed.find import PlacedAxis, PlacedNode
from exactile_converters.placed.place import Place
from exactile_converters.placed.resize import placed_resize
from exactile_converters.placed.tile_graph import resampling_of
from exactile_converters.strips.work import Rewriter, Work


def placed(work: Work, at: Rewriter, found: PlacedNode) -> str:
    """Rewrite a Resize or Upsample whose positions depend on the place."""
    chunk = at.chunk(work.node.inputs[0])
    rows = chunk.name
    places = []
    if "y" in found.axes:
        places.append(_rows(work, at, found.axes["y"], chunk.start))
    else:
        rows = at.build.rows(chunk, work.start, work.stop)
    if "x" in found.axes:
        places.append(_columns(at, found.axes["x"]))
    how = resampling_of(ir.serde.serialize_node(work.node), at.opset)
    return placed_resize(at.build, rows, found.rank, places, how, element_type=found.dtype)


def _rows(work: Work, at: Rewriter, axis: PlacedAxis, start: int) -> Place:
    """Return the place of rows, at the reference height; ``start`` is the first row available of the operand."""
    sizes, reference = at.arithmetic, at.frontiers.reference
    first, whole = sizes.entry(POSITION, 0), sizes.entry(POSITION, 1)
    above = 0 if at.role == "first" else reference
    operand, result = axis.operand.scale, axis.result.scale
    rows, before = sizes.length(at.image, 0), work.start - int(above * result)
    if at.role == "last":
        count = sizes.plus(sizes.size(rows, axis.result), -before)
    else:
        count = sizes.plus(sizes.scaled(rows, result), work.stop - work.start - int(reference * result))
    return Place(
        dim=axis.dim,
        begin=sizes.plus(sizes.scaled(first, result), before),
        count=count,
        source=sizes.plus(sizes.scaled(first, operand), start - int(above * operand)),
        source_size=sizes.size(whole, axis.operand),
        result_size=sizes.size(whole, axis.result),
        scale=axis.scale,
        most_taps=axis.most_taps,
    )


def _columns(at: Rewriter, axis: PlacedAxis) -> Place:
    """Return the place of all columns of the band."""
    sizes = at.arithmetic
    first, whole = sizes.entry(POSITION, 2), sizes.entry(POSITION, 3)
    return Place(
        dim=axis.dim,
        begin=sizes.scaled(first, axis.result.scale),
        count=sizes.size(sizes.length(at.image, 1), axis.result),
        source=sizes.scaled(first, axis.operand.scale),
        source_size=sizes.size(whole, axis.operand),
        result_size=sizes.size(whole, axis.result),
        scale=axis.scale,
        most_taps=axis.most_taps,
    )
