"""How each operator computes some rows of its result from chunks of its operands.

Every operator runs on the rows it needs: at the image's true edges with the padding of the whole network, inside
the image without. So no row is invented, and no row is masked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import floor
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from exactile.geometry import Span
from exactile_converters.geometry.feature_maps import FeatureMap
from exactile_converters.geometry.node_view import Label
from exactile_converters.geometry.probe import Probe, without_repeats
from exactile_converters.geometry.reach import Blocks, Interpolation, Reach, TransposedWindow, Window
from exactile_converters.geometry.rules.pixelwise import BROADCASTING
from exactile_converters.geometry.sliding import CONVOLUTIONS, Kernel
from exactile_converters.strips.chunks import OPEN_END, Chunk, GraphBuilder, Role
from exactile_converters.strips.frontier import Frontiers, first_contributing, shrinking
from exactile_converters.strips.refusal import StripError

WINDOWS = {"Conv", "MaxPool", "AveragePool", "LpPool", "QLinearConv", "ConvInteger"}
ONE_ROW = Window()

LAYOUT_MATTERS = {"BatchNormalization", "Add", "Sum", "Mul", "Concat", "Resize", "Upsample"}
"""Operators whose kernel, and so its rounding or that of the next, depends on the layout of what they read."""


@dataclass(slots=True, kw_only=True)
class Rewriter:
    """The state of one graph being built: where each map's chunk is."""

    role: Role
    frontiers: Frontiers
    build: GraphBuilder
    probe: Probe
    chunks: dict[str, Chunk]
    constants: dict[str, onnx.TensorProto]
    blocked: frozenset[str]
    image_width: str = ""

    def chunk(self, value: ir.Value | None) -> Chunk:
        if value is None or value.name not in self.chunks:
            raise StripError("an operand is not at hand")
        return self.chunks[value.name or ""]

    def rows(self, value: ir.Value | None, start: int, stop: int, work: Work) -> str:
        """The rows ``start`` to ``stop`` of an operand of ``work``, in the layout that a whole pass has it in."""
        chunk = self.chunk(value)
        name = self.build.rows(chunk, start, stop)
        if work.node.op_type in LAYOUT_MATTERS and work.result.name in self.blocked:
            return self.build.blocked(name, chunk.feature)
        return name

    def is_feature(self, value: ir.Value | None) -> bool:
        return value is not None and value.name in self.frontiers.maps()

    def feature(self, value: ir.Value | None) -> FeatureMap:
        return self.frontiers.feature(value.name or "" if value is not None else "")

    def value(self, value: ir.Value | None) -> NDArray[Any]:
        """A constant operand's value."""
        fact = self.probe.of(value)
        if fact is None or fact.value is None:
            raise StripError("a constant operand has no known value")
        return fact.value

    def parameter(self, value: ir.Value | None) -> str:
        """A constant operand as it is."""
        if value is None or not value.name:
            return ""
        if value.name in self.constants:
            self.build.constants[value.name] = self.constants[value.name]
            return value.name
        return self.build.constant(without_repeats(self.value(value)))

    def uniform(self, value: ir.Value | None, result: FeatureMap) -> str:
        """A constant operand that is the same all over the image, with one entry along y and x."""
        name = value.name or "" if value is not None else ""
        fact = self.probe.of(value)
        if fact is None or fact.shape is None:
            raise StripError(f"the shape of {name} is not known")
        labels = result.labels[len(result.labels) - len(fact.shape) :] if fact.shape else ()
        spread = [dim for dim, label in enumerate(labels) if label in ("y", "x", "yx") and fact.shape[dim] != 1]
        if not spread:
            return self.parameter(value)
        index = tuple(slice(0, 1) if dim in spread else slice(None) for dim in range(len(fact.shape)))
        return self.build.constant(self.value(value)[index])


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One node and the rows of its result to compute: ``start`` to ``stop``, at the reference height."""

    node: ir.Node
    start: int
    stop: int
    reaches: dict[int, Reach]
    widths: dict[int, Reach]
    result: FeatureMap

    def reach(self, operand: int = 0) -> Reach:
        return self.reaches[operand]

    @property
    def rows(self) -> int:
        return self.stop - self.start


def rewrite(work: Work, at: Rewriter) -> list[str]:
    """Add what computes the rows of ``work``; the names of the node's results."""
    op = work.node.op_type
    if op in WINDOWS:
        return _window(work, at)
    handler = _HANDLERS.get(op)
    return [handler(work, at)] if handler else _pixelwise(work, at)


def _copy(work: Work, at: Rewriter, inputs: list[str], **changes: Any) -> list[str]:
    """The node itself with other inputs and some attributes changed (None removes one)."""
    proto = ir.to_proto(work.node)
    names = [at.build.fresh(value.name) if value.name else "" for value in work.node.outputs]
    kept = [attribute for attribute in proto.attribute if attribute.name not in changes]
    copy = onnx.NodeProto(op_type=proto.op_type, domain=proto.domain, name=f"{names[0]}_node")
    copy.input.extend(inputs)
    copy.output.extend(names)
    copy.attribute.extend(kept)
    copy.attribute.extend(
        onnx.helper.make_attribute(name, value) for name, value in changes.items() if value is not None
    )
    at.build.nodes.append(copy)
    return names


def _pixelwise(work: Work, at: Rewriter) -> list[str]:
    """Operators that leave rows alone: each operand gives exactly the rows of the result."""
    inputs = []
    if work.node.op_type == "MaxUnpool":
        raise StripError("MaxUnpool puts values where positions within one strip say")
    for value in work.node.inputs:
        if at.is_feature(value):
            inputs.append(at.rows(value, work.start, work.stop, work))
        elif work.node.op_type == "Concat":
            inputs.append(_spread(value, work, at))
        elif work.node.op_type in BROADCASTING:
            inputs.append(at.uniform(value, work.result))
        else:
            inputs.append(at.parameter(value))
    return _copy(work, at, inputs)


def _spread(value: ir.Value | None, work: Work, at: Rewriter) -> str:
    """A constant map that is joined to others: as many rows and columns as they have."""
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


def _window(work: Work, at: Rewriter) -> list[str]:
    """Convolution and pooling: native padding at the true edges, none inside."""
    node, chunk = work.node, at.chunk(work.node.inputs[0])
    reach = work.reach()
    window = reach if isinstance(reach, Window) else ONE_ROW
    first = work.start * window.stride - window.pad
    begin = max(first, chunk.start) if at.role == "first" else first
    extent = (window.kernel - 1) * window.dilation + 1
    labels = at.feature(node.inputs[0]).labels[2:]
    pads = [_native_pads(work, at, label) for label in labels]
    changes: dict[str, Any] = {"auto_pad": None}
    y = labels.index("y")
    before, after = begin - first, pads[y][1] if at.role == "last" else 0
    end = chunk.stop
    if at.role != "last":
        if node.attributes.get_int("ceil_mode", 0):  # columns may be rounded up, rows must not need it
            end = (work.stop - 1) * window.stride - window.pad + extent
        made = (end - begin + before - extent) // window.stride + 1
        if made != work.rows:
            raise StripError(f"{node.op_type} {node.name} makes {made} rows where {work.rows} are wanted")
    pads[y] = (before, after)
    changes["pads"] = [pad[0] for pad in pads] + [pad[1] for pad in pads]
    inputs = [at.build.rows(chunk, begin, end)]
    inputs += [at.parameter(value) for value in node.inputs[1:]]
    return _copy(work, at, inputs, **changes)


def _native_pads(work: Work, at: Rewriter, label: Label) -> tuple[int, int]:
    """The node's own padding before and after along one axis, automatic padding in numbers."""
    node, operand = work.node, at.feature(work.node.inputs[0])
    index = operand.labels[2:].index(label)
    weight = at.probe.of(node.inputs[CONVOLUTIONS[node.op_type]]) if node.op_type in CONVOLUTIONS else None
    sizes = weight.shape[2:] if weight is not None and weight.shape is not None else None
    kernel = Kernel.of(node, sizes or node.attributes.get_ints("kernel_shape", ()) or ())
    placed = kernel.placed(index, operand.shape[index + 2])
    if min(placed.before, placed.after) < 0:
        raise StripError(f"{node.op_type} {node.name} pads a negative number of pixels, which is a crop")
    return placed.before, placed.after


def _transposed(work: Work, at: Rewriter) -> str:
    """Transposed convolution: the rows that are not wanted are cropped by its own padding attribute."""
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
    return _copy(
        work,
        at,
        inputs,
        auto_pad=None,
        output_shape=None,
        pads=[pad[0] for pad in pads] + [pad[1] for pad in pads],
        output_padding=extra,
    )[0]


def _transposed_window(reach: Reach) -> TransposedWindow:
    return reach if isinstance(reach, TransposedWindow) else TransposedWindow(kernel=1)


def _resize(work: Work, at: Rewriter) -> str:
    """Interpolation by factors: on all rows that it reads, with some to spare, which are cut off afterwards."""
    node, chunk = work.node, at.chunk(work.node.inputs[0])
    reach, operand = work.reach(), at.feature(work.node.inputs[0])
    factor = shrinking(reach)
    scale = reach.scale if isinstance(reach, Interpolation) else 1
    # Rows that are made begin at the place of the first row read: it must not lie below the first one wanted.
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
        # A single row would be put elsewhere: one more is made, on the side where it changes nothing.
        more = at.build.last_rows(chunk, factor)
        rows = at.build.add("Concat", [more, rows] if at.role == "last" else [rows, more], axis=chunk.axis)
        start, stop = (start - 1, stop) if at.role == "last" else (start, stop + 1)
    if mode == "half_pixel_symmetric" and factor > 1:
        # It moves rows by what rounding up or down to whole rows changes: nothing at the sizes of a whole image.
        changes["coordinate_transformation_mode"] = "half_pixel"
    inputs = [rows, scales] if node.op_type == "Upsample" else [rows, "", scales]
    made = _copy(work, at, inputs, **changes)[0]
    return at.build.rows(Chunk(made, start, stop, work.result), work.start, work.stop)


def _blocks_of(work: Work, at: Rewriter) -> tuple[str, Callable[[str], str]]:
    """The rows of the first operand that whole blocks need, and how to cut the result to the wanted rows."""
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


def _rearranged(work: Work, at: Rewriter) -> str:
    """DepthToSpace, SpaceToDepth and Flatten."""
    rows, cut = _blocks_of(work, at)
    return cut(_copy(work, at, [rows])[0])


def _reshape(work: Work, at: Rewriter) -> str:
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
    """The number of columns of a map, computed from the image's."""
    scale, constant = feature.scale["x"], feature.constant["x"]
    width = at.image_width
    # width * numerator + constant * denominator, over the denominator: whole for every accepted width
    width = at.build.add("Mul", [width, at.build.integers([scale.numerator])])
    shift = constant * scale.denominator
    width = at.build.add("Add", [width, at.build.integers([int(shift)])])
    return at.build.add("Div", [width, at.build.integers([scale.denominator])])


def _expand(work: Work, at: Rewriter) -> str:
    """Repetition along channels: of rows and columns there is one each, which keeps the operand's."""
    rows = at.build.rows(at.chunk(work.node.inputs[0]), work.start, work.stop)
    target = [
        1 if label in ("y", "x", "yx") else size
        for label, size in zip(work.result.labels, work.result.shape, strict=True)
    ]
    return at.build.add("Expand", [rows, at.build.integers(target)])


def _pad(work: Work, at: Rewriter) -> str:
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
    return _copy(work, at, inputs)[0]


def _amounts(node: ir.Node, at: Rewriter) -> NDArray[Any]:
    """The amounts of a Pad node."""
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        return at.value(node.inputs[1]).ravel()
    return np.array(node.attributes.get_ints("pads", ()))


def _slice(work: Work, at: Rewriter) -> str:
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


_HANDLERS: dict[str, Callable[[Work, Rewriter], str]] = {
    "ConvTranspose": _transposed,
    "Resize": _resize,
    "Upsample": _resize,
    "DepthToSpace": _rearranged,
    "SpaceToDepth": _rearranged,
    "Flatten": _rearranged,
    "Reshape": _reshape,
    "Expand": _expand,
    "Pad": _pad,
    "Slice": _slice,
}
