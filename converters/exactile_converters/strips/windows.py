"""The rows of sliding windows: convolution, pooling, transposed convolution."""

from __future__ import annotations

from typing import Any

from exactile_converters.cuda_kernels.symmetric_padding import symmetric
from exactile_converters.geometry.node_view import Label
from exactile_converters.geometry.reach import Reach, TransposedWindow, Window
from exactile_converters.geometry.sliding import CONVOLUTIONS, POOLS, Kernel
from exactile_converters.strips.frontier import first_contributing
from exactile_converters.strips.refusal import StripError
from exactile_converters.strips.work import ONE_ROW, Rewriter, Work, copy

WINDOWS = {*CONVOLUTIONS, *POOLS}


def window(work: Work, at: Rewriter) -> list[str]:
    """Rewrite convolution and pooling: native padding at the true edges, none inside."""
    node, chunk = work.node, at.chunk(work.node.inputs[0])
    reach = work.reach()
    along = reach if isinstance(reach, Window) else ONE_ROW
    first = work.start * along.stride - along.pad
    begin = max(first, chunk.start) if at.role == "first" else first
    extent = (along.kernel - 1) * along.dilation + 1
    labels = at.feature(node.inputs[0]).labels[2:]
    pads = [_native_pads(work, at, label) for label in labels]
    changes: dict[str, Any] = {"auto_pad": None}
    y = labels.index("y")
    before, after = begin - first, pads[y][1] if at.role == "last" else 0
    end = chunk.stop
    if at.role != "last":
        if node.attributes.get_int("ceil_mode", 0):  # columns may be rounded up; rows must not need it
            end = (work.stop - 1) * along.stride - along.pad + extent
        made = (end - begin + before - extent) // along.stride + 1
        if made != work.rows:
            raise StripError(f"{node.op_type} {node.name} makes {made} rows where {work.rows} are wanted")
    pads[y] = (before, after)
    changes["pads"] = [pad[0] for pad in pads] + [pad[1] for pad in pads]
    inputs = [at.build.rows(chunk, begin, end)]
    inputs += [at.parameter(value) for value in node.inputs[1:]]
    return copy(work, at, inputs, **changes)


def _native_pads(work: Work, at: Rewriter, label: Label) -> tuple[int, int]:
    """Return the node's own padding before and after along one axis, automatic padding as numbers."""
    node, operand = work.node, at.feature(work.node.inputs[0])
    index = operand.labels[2:].index(label)
    weight = at.probe.of(node.inputs[CONVOLUTIONS[node.op_type]]) if node.op_type in CONVOLUTIONS else None
    sizes = weight.shape[2:] if weight is not None and weight.shape is not None else None
    kernel = Kernel.of(node, sizes or node.attributes.get_ints("kernel_shape", ()) or ())
    placed = kernel.placed(index, operand.shape[index + 2])
    if min(placed.before, placed.after) < 0:
        raise StripError(f"{node.op_type} {node.name} pads a negative number of pixels, which is a crop")
    return placed.before, placed.after


def transposed(work: Work, at: Rewriter) -> str:
    """Rewrite a transposed convolution: its padding attribute crops unwanted rows, equally on both sides.

    What is too much on one side is cropped afterwards: ONNX Runtime's CUDA provider accepts no other padding.
    """
    node, chunk = work.node, at.chunk(work.node.inputs[0])
    reach = work.reach()
    window = reach if isinstance(reach, TransposedWindow) else TransposedWindow(kernel=1)
    first = first_contributing(window, work.start)
    begin = max(first, chunk.start)
    labels = at.feature(node.inputs[0]).labels[2:]
    pads, extra = [], []
    for index, label in enumerate(labels):
        along = window if label == "y" else _transposed_window(work.widths[0])
        extent = (along.kernel - 1) * along.dilation + 1
        if label == "y":
            crop, size, out = work.start + window.pad - begin * window.stride, chunk.stop - begin, work.rows
        else:
            crop, size, out = along.pad, at.feature(node.inputs[0]).shape[index + 2], work.result.shape[index + 2]
        after = (size - 1) * along.stride + extent - crop - out
        pads.append((crop, max(0, after)))
        extra.append(max(0, -after))
        if crop < 0:
            raise StripError(f"ConvTranspose {node.name} needs rows before its first")
        if extra[-1] >= along.stride:
            raise StripError(f"ConvTranspose {node.name} makes rows or columns that nothing contributes to")
    inputs = [at.build.rows(chunk, begin, chunk.stop), *(at.parameter(value) for value in node.inputs[1:])]
    equal, cut = symmetric(pads)
    made = copy(
        work,
        at,
        inputs,
        auto_pad=None,
        output_shape=None,
        pads=[pad[0] for pad in equal] + [pad[1] for pad in equal],
        output_padding=extra,
    )[0]
    if cut is None:
        return made
    return at.build.add("Slice", [made, *map(at.build.integers, (cut.starts, cut.ends, cut.axes))], hint="cut")


def _transposed_window(reach: Reach) -> TransposedWindow:
    return reach if isinstance(reach, TransposedWindow) else TransposedWindow(kernel=1)
