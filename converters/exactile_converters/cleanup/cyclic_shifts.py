"""Replace cyclic shifts, which exporters write as Slices and a Concat in the other order, by Gather.

The Gather reads the row numbers, cut and joined in the same way. A shift is then a single operator on the map, for
which the walk over the graph has a rule. It moves the same values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from exactile_converters.geometry.rules.slicing import UNBOUNDED
from exactile_converters.runtime_operators.writer import Writer

END = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class _Part:
    """What a Slice along one axis cuts out of a map."""

    source: ir.Value
    axis: int
    start: ir.Value
    end: ir.Value


def gather_cyclic_shifts(model: ir.Model) -> int:
    """Write each cyclic shift of the main graph of ``model`` as a Gather, and return how many there were.

    A part that other nodes read is kept.
    """
    written = 0
    for node in list(model.graph):
        found = _shift(node)
        if found is not None:
            _write(node, *found)
            written += 1
    return written


def _shift(node: ir.Node) -> tuple[ir.Value, ir.Value] | None:
    """Return what is shifted along the node's axis, and by how much: result ``i`` is entry ``i + shift``."""
    if node.op_type != "Concat" or node.domain or len(node.inputs) != 2:
        return None
    first, second = map(_part, node.inputs)
    if first is None or second is None or (first.source, first.axis) != (second.source, second.axis):
        return None
    is_shift = _same(first.start, second.end) and _number(second.start) == 0 and _reaches_the_end(first)
    return (first.source, first.start) if is_shift and _same_axis(node, first) else None


def _same(one: ir.Value, other: ir.Value) -> bool:
    return one is other or (_number(one) is not None and _number(one) == _number(other))


def _reaches_the_end(part: _Part) -> bool:
    """Return whether the part ends where the map does, whatever the map's size."""
    number, maker = _number(part.end), part.end.producer()
    if number is not None:
        return number >= UNBOUNDED
    if maker is None or maker.op_type != "Shape" or maker.inputs[0] is not part.source:
        return False
    first = maker.attributes.get_int("start", 0)
    return first == part.axis and maker.attributes.get_int("end", -1) == first + 1


def _same_axis(node: ir.Node, part: _Part) -> bool:
    """Return whether the parts are joined along the axis along which they were cut."""
    axis = node.attributes.get_int("axis", 0)
    if (axis < 0) == (part.axis < 0):
        return axis == part.axis
    rank = len(part.source.shape) if part.source.shape is not None else None
    return rank is not None and axis % rank == part.axis % rank


def _part(value: ir.Value | None) -> _Part | None:
    """Return the part; None unless the node is a forward Slice along one axis."""
    node = value.producer() if value is not None else None
    if node is None or node.op_type != "Slice" or node.domain or len(node.inputs) < 4:
        return None
    source, start, end, axes = node.inputs[:4]
    if source is not None and (maker := source.producer()) is not None and maker.op_type == "Range":
        return None  # row numbers of a shift that was already rewritten
    step = node.inputs[4] if len(node.inputs) > 4 else None
    axis = _number(axes)
    if source is None or start is None or end is None or axis is None or (step is not None and _number(step) != 1):
        return None
    return _Part(source, axis, start, end)


def _number(value: ir.Value | None) -> int | None:
    """Return the only entry of a constant."""
    constant = ir.convenience.get_const_tensor(value) if value is not None else None
    return int(constant.numpy().ravel()[0]) if constant is not None and constant.size == 1 else None


def _write(node: ir.Node, source: ir.Value, shift: ir.Value) -> None:
    write = Writer(node)
    if shift.dtype != ir.DataType.INT64:
        shift = write.add("Cast", shift, to=ir.DataType.INT64)
    axis = node.attributes.get_int("axis", 0)
    zero, one = write.constant(np.array(0, np.int64)), write.constant(np.array(1, np.int64))
    first, last = write.constant(np.array([0], np.int64)), write.constant(np.array([END], np.int64))
    size = write.add("Gather", write.add("Shape", source), write.constant(np.array(axis, np.int64)), axis=0)
    places = write.add("Range", zero, size, one)
    parts = write.add("Slice", places, shift, last, first), write.add("Slice", places, first, shift, first)
    write.replace(write.add("Gather", source, write.add("Concat", *parts, axis=0), axis=axis))
