"""The rows of operators that move, repeat, pad and crop pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from exactile_converters.geometry.feature_maps import FeatureMap
from exactile_converters.geometry.reach import Blocks, Window
from exactile_converters.strips.chunks import OPEN_END, Chunk
from exactile_converters.strips.work import ONE_ROW, Rewriter, Work, copy


def _blocks_of(work: Work, at: Rewriter) -> tuple[str, Callable[[str], str]]:
    """Return the rows of the first operand that whole blocks need, and how to cut the result to the wanted rows."""
    chunk, reach = at.chunk(work.node.inputs[0]), work.reach()
    match reach:
        case Blocks(factor=factor):
            begin, end = work.start // factor, -(-work.stop // factor)
            made = (begin * factor, end * factor)
        case Window(kernel=kernel, stride=stride, pad=0) if kernel == stride:
            begin, end = work.start * stride, work.stop * stride
            made = (work.start, work.stop)
        case _:
            begin, end, made = work.start, work.stop, (work.start, work.stop)
    rows = at.build.rows(chunk, begin, end)
    return rows, lambda name: at.build.rows(Chunk(name, *made, work.result), work.start, work.stop)


def rearranged(work: Work, at: Rewriter) -> str:
    """Rewrite DepthToSpace, SpaceToDepth and Flatten."""
    rows, cut = _blocks_of(work, at)
    return cut(copy(work, at, [rows])[0])


def reshape(work: Work, at: Rewriter) -> str:
    """Rewrite a Reshape: whole blocks of rows, with the width computed from the image's."""
    rows, cut = _blocks_of(work, at)
    entries: list[str] = []
    for dim, label in enumerate(work.result.labels):
        if label in ("y", "yx"):
            entries.append(at.build.integers([-1]))
        elif label == "x":
            entries.append(_width(work.result, at))
        else:
            entries.append(at.build.integers([work.result.shape[dim]]))
    target = at.build.add("Concat", entries, axis=0, hint="shape")
    return cut(at.build.add("Reshape", [rows, target]))


def _width(feature: FeatureMap, at: Rewriter) -> str:
    """Return the number of columns of a map, computed from the image's."""
    scale, constant = feature.scale["x"], feature.constant["x"]
    width = at.image_width
    # width * numerator + constant * denominator, over the denominator: an integer for every accepted width
    width = at.build.add("Mul", [width, at.build.integers([scale.numerator])])
    shift = constant * scale.denominator
    width = at.build.add("Add", [width, at.build.integers([int(shift)])])
    return at.build.add("Div", [width, at.build.integers([scale.denominator])])


def expand(work: Work, at: Rewriter) -> str:
    """Repeat along channels: rows and columns have size 1, which keeps the operand's."""
    rows = at.build.rows(at.chunk(work.node.inputs[0]), work.start, work.stop)
    target = [
        1 if label in ("y", "x", "yx") else size
        for label, size in zip(work.result.labels, work.result.shape, strict=True)
    ]
    return at.build.add("Expand", [rows, at.build.integers(target)])


def pad(work: Work, at: Rewriter) -> str:
    """Rewrite a Pad: rows are padded at the true edges only."""
    node, chunk = work.node, at.chunk(work.node.inputs[0])
    reach = work.reach()
    window = reach if isinstance(reach, Window) else ONE_ROW
    labels = at.feature(node.inputs[0]).labels
    amounts = [int(v) for v in _amounts(node, at)]
    axes = (
        [int(a) % len(labels) for a in at.value(node.inputs[3]).ravel()]
        if len(node.inputs) > 3 and node.inputs[3] is not None
        else list(range(len(labels)))
    )
    before, after = [0] * len(labels), [0] * len(labels)
    for place, axis in enumerate(axes):
        before[axis], after[axis] = amounts[place], amounts[place + len(axes)]
    y = labels.index("y") if "y" in labels else None
    begin, end = work.start - window.pad, work.stop - window.pad
    inside = max(begin, chunk.start), min(end, chunk.stop)
    if y is not None:
        before[y], after[y] = inside[0] - begin, end - inside[1]
    rows = at.build.rows(chunk, *inside)
    if not any(before) and not any(after):
        return rows
    inputs = [rows, at.build.integers([*before, *after])]
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        inputs.append(at.parameter(node.inputs[2]))
    return copy(work, at, inputs)[0]


def _amounts(node: ir.Node, at: Rewriter) -> NDArray[Any]:
    """Return the amounts of a Pad node."""
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        return at.value(node.inputs[1]).ravel()
    return np.array(node.attributes.get_ints("pads", ()))


def sliced(work: Work, at: Rewriter) -> str:
    """Rewrite a Slice: select the rows that it keeps, and slice the other axes."""
    node, chunk = work.node, at.chunk(work.node.inputs[0])
    operand, reach = at.feature(node.inputs[0]), work.reach()
    starts, ends = at.value(node.inputs[1]).ravel(), at.value(node.inputs[2]).ravel()
    has_axes = len(node.inputs) > 3 and node.inputs[3] is not None
    axes = at.value(node.inputs[3]).ravel() if has_axes else np.arange(len(starts))
    has_steps = len(node.inputs) > 4 and node.inputs[4] is not None
    steps = at.value(node.inputs[4]).ravel() if has_steps else np.ones(len(starts), np.int64)
    window = reach if isinstance(reach, Window) else ONE_ROW
    rows = at.build.rows(
        chunk, work.start * window.stride - window.pad, (work.stop - 1) * window.stride - window.pad + 1
    )
    kept: list[tuple[int, int, int, int]] = []
    for place, axis in enumerate(int(a) % len(operand.labels) for a in axes):
        label, step = operand.labels[axis], int(steps[place])
        if label == "y":
            if step != 1:
                kept.append((axis, 0, OPEN_END, step))
        elif label == "x":
            across = work.widths[0]
            start = -across.pad if isinstance(across, Window) else 0
            size, out = operand.shape[axis], work.result.shape[axis]
            end = start + (out - 1) * step + 1 - size
            kept.append((axis, start, end if end < 0 else OPEN_END, step))
        else:
            kept.append((axis, int(starts[place]), int(ends[place]), step))
    if not kept:
        return rows
    columns = list(zip(*kept, strict=True))
    lists = [at.build.integers(columns[i]) for i in (1, 2, 0, 3)]
    return at.build.add("Slice", [rows, *lists])
