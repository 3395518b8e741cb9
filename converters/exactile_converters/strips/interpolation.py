"""The rows of Resize and Upsample."""

from __future__ import annotations

from math import floor
from typing import Any

import numpy as np

from exactile.geometry import Span
from exactile_converters.geometry.reach import Interpolation
from exactile_converters.strips.chunks import Chunk
from exactile_converters.strips.frontier import shrinking
from exactile_converters.strips.work import Rewriter, Work, copy


def resize(work: Work, at: Rewriter) -> str:
    """Interpolate by factors all rows that are read, with some to spare, which are cut off afterwards."""
    node, chunk = work.node, at.chunk(work.node.inputs[0])
    reach, operand = work.reach(), at.feature(work.node.inputs[0])
    factor = shrinking(reach)
    scale = reach.scale if isinstance(reach, Interpolation) else 1
    # The result begins at the position of the first row read: it must not lie below the first one wanted.
    first = min(reach.needed(Span(work.start, work.start + 1)).start, floor(work.start / scale)) // factor * factor
    begin = max(first, chunk.start) if at.role == "first" else first
    across = work.widths[0]
    factors = {"y": float(scale), "x": float(across.scale) if isinstance(across, Interpolation) else 1.0}
    scales = at.build.constant(np.array([factors.get(label, 1.0) for label in operand.labels], np.float32))
    start, stop = int(begin * scale), int(begin * scale) + int((chunk.stop - begin) * scale)
    rows = at.rows(node.inputs[0], begin, chunk.stop, work)
    changes: dict[str, Any] = {"axes": None, "keep_aspect_ratio_policy": None}
    mode = node.attributes.get_string("coordinate_transformation_mode", "")
    if mode == "pytorch_half_pixel" and factor > 1:
        # A single row would be placed differently: one more is computed, on the side where it changes nothing.
        more = at.build.last_rows(chunk, factor)
        rows = at.build.add("Concat", [more, rows] if at.role == "last" else [rows, more], axis=chunk.axis)
        start, stop = (start - 1, stop) if at.role == "last" else (start, stop + 1)
    if mode == "half_pixel_symmetric" and factor > 1:
        # This mode shifts rows by the rounding of the size: nothing at the sizes of a whole image.
        changes["coordinate_transformation_mode"] = "half_pixel"
    inputs = [rows, scales] if node.op_type == "Upsample" else [rows, "", scales]
    made = copy(work, at, inputs, **changes)[0]
    return at.build.rows(Chunk(made, start, stop, work.result), work.start, work.stop)
