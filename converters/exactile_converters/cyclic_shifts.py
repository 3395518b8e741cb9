"""Cyclic shifts: exporters cut a map in two and join the parts the other way round.

Written as one Gather each, of rows ``(i + shift) % rows``, a shift is a single operator, of which the walk over the
graph knows what it reads. It moves the same values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from exactile_converters.geometry.rules.slicing import UNBOUNDED
from exactile_converters.runtime_operators.writer import Writer


@dataclass(frozen=True, slots=True)
class _Part:
    """What a Slice of one axis cuts out of a map."""

    source: ir.Value
    axis: int
    start: int
    end: int


def gather_cyclic_shifts(model: ir.Model) -> int:
    """Write each cyclic shift of the main graph of ``model`` as a Gather; how many there were.

    A part that something else reads, too, stays.
    """
    written = 0
    for node in list(model.graph):
        found = _shift(node)
        if found is not None:
            _write(node, *found)
            written += 1
    return written


def _shift(node: ir.Node) -> tuple[ir.Value, int] | None:
    """What is shifted along the node's axis, and by how much: result ``i`` is entry ``i + shift``."""
    if node.op_type != "Concat" or node.domain or len(node.inputs) != 2:
        return None
    first, second = map(_part, node.inputs)
    if first is None or second is None or (first.source, first.axis) != (second.source, second.axis):
        return None
    is_shift = first.start == second.end != 0 and second.start == 0 and first.end >= UNBOUNDED
    return (first.source, first.start) if is_shift and _same_axis(node, first) else None


def _same_axis(node: ir.Node, part: _Part) -> bool:
    """Whether the parts are joined along the axis they were cut along."""
    axis = node.attributes.get_int("axis", 0)
    if (axis < 0) == (part.axis < 0):
        return axis == part.axis
    rank = len(part.source.shape) if part.source.shape is not None else None
    return rank is not None and axis % rank == part.axis % rank


def _part(value: ir.Value | None) -> _Part | None:
    """None for what is no Slice of one axis, forwards, by constants."""
    node = value.producer() if value is not None else None
    if node is None or node.op_type != "Slice" or node.domain or len(node.inputs) < 4 or node.inputs[0] is None:
        return None
    numbers = [_number(one) for one in node.inputs[1:]]
    if None in numbers or (len(numbers) > 3 and numbers[3] != 1):
        return None
    start, end, axis = (int(number) for number in numbers[:3] if number is not None)
    return _Part(node.inputs[0], axis, start, end)


def _number(value: ir.Value | None) -> int | None:
    """The only entry of a constant."""
    constant = ir.convenience.get_const_tensor(value) if value is not None else None
    return int(constant.numpy().ravel()[0]) if constant is not None and constant.size == 1 else None


def _write(node: ir.Node, source: ir.Value, shift: int) -> None:
    write = Writer(node)
    axis = node.attributes.get_int("axis", 0)
    numbers = {number: write.constant(np.array(number, np.int64)) for number in {0, 1, axis, shift}}
    size = write.add("Gather", write.add("Shape", source), numbers[axis], axis=0)
    places = write.add("Range", numbers[0], size, numbers[1])
    moved = write.add("Mod", write.add("Add", places, numbers[shift]), size)
    write.replace(write.add("Gather", source, moved, axis=axis))
