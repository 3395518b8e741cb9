"""Replace sequences of constant length and positions by their entries."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from exactile_converters.constant_flow.writing_out import WritingOut

Made = list[ir.Node] | None
"""New nodes of the main graph; None where the operator is kept."""

MOST_ENTRIES = 4096


def empty(node: ir.Node, at: WritingOut) -> Made:
    """Replace SequenceEmpty."""
    at.sequences[node.outputs[0]] = ()
    return []


def construct(node: ir.Node, at: WritingOut) -> Made:
    """Replace SequenceConstruct."""
    at.sequences[node.outputs[0]] = tuple(value for value in node.inputs if value is not None)
    return []


def insert(node: ir.Node, at: WritingOut) -> Made:
    """Replace SequenceInsert."""
    found = _entries(node, at)
    entry = node.inputs[1]
    place = _place(node, 2, at, len(found or ()))
    if found is None or entry is None or place is None or not -len(found) <= place <= len(found):
        return None
    place = place + len(found) if place < 0 else place
    at.sequences[node.outputs[0]] = (*found[:place], entry, *found[place:])
    return []


def erase(node: ir.Node, at: WritingOut) -> Made:
    """Replace SequenceErase."""
    found = _entries(node, at)
    place = _place(node, 1, at, len(found or ()) - 1)
    if found is None or place is None or not -len(found) <= place < len(found):
        return None
    place %= len(found)
    at.sequences[node.outputs[0]] = (*found[:place], *found[place + 1 :])
    return []


def pick(node: ir.Node, at: WritingOut) -> Made:
    """Replace SequenceAt."""
    found = _entries(node, at)
    place = at.known.number(node.inputs[1])
    if found is None or place is None or not -len(found) <= place < len(found):
        return None
    return at.replace(node, [found[place]])


def length(node: ir.Node, at: WritingOut) -> Made:
    """Replace SequenceLength."""
    found = _entries(node, at)
    if found is None:
        return None
    return at.replace(node, [at.constant(np.array(len(found), np.int64), f"{node.name}_length")])


def concatenate(node: ir.Node, at: WritingOut) -> Made:
    """Replace ConcatFromSequence, along an existing axis or a new one."""
    found = _entries(node, at)
    if not found:
        return None
    axis = node.attributes.get_int("axis", 0) or 0
    parts, made = list(found), []
    if node.attributes.get_int("new_axis", 0) == 1:
        axes = at.constant(np.array([axis], np.int64), f"{node.name}_axis")
        made = [at.add(node, "Unsqueeze", [part, axes], {}) for part in parts]
        parts = [new.outputs[0] for new in made]
    made.append(at.add(node, "Concat", parts, {"axis": axis}))
    return made + at.replace(node, made[-1].outputs)


def split(node: ir.Node, at: WritingOut) -> Made:
    """Replace SplitToSequence: into equal parts, the last of which may be smaller, or into parts of given sizes.

    ONNX Runtime drops the axis of parts of size one, even where their size is given as a number.
    """
    source, axis = node.inputs[0], node.attributes.get_int("axis", 0) or 0
    given = node.inputs[1] if len(node.inputs) > 1 else None
    sizes = at.known.value(given) if given is not None else np.array(1)
    whole = at.known.size(source, axis)
    if source is None or sizes is None or whole is None:
        return None
    drops = sizes.ndim == 0 and node.attributes.get_int("keepdims", 1) == 0
    if sizes.ndim == 0:
        step = int(sizes)
        if step < 1 or whole > step * MOST_ENTRIES or (drops and step > 1):
            return None
        sizes = np.array([min(step, whole - start) for start in range(0, whole, step)])
    if sizes.sum() != whole or not 0 < sizes.size <= MOST_ENTRIES:
        return None
    lengths = at.constant(sizes.astype(np.int64), f"{node.name}_sizes")
    made = [at.add(node, "Split", [source, lengths], {"axis": axis}, outputs=sizes.size)]
    parts = list(made[0].outputs)
    if drops:
        axes = at.constant(np.array([axis], np.int64), f"{node.name}_axis")
        made += [at.add(node, "Squeeze", [part, axes], {}) for part in parts]
        parts = [new.outputs[0] for new in made[1:]]
    at.sequences[node.outputs[0]] = tuple(parts)
    return made


def same(node: ir.Node, at: WritingOut) -> Made:
    """Replace Identity of a sequence."""
    found = _entries(node, at)
    if found is None:
        return None
    at.sequences[node.outputs[0]] = found
    return []


def optional(node: ir.Node, at: WritingOut) -> Made:
    """Replace Optional, and OptionalGetElement of an existing element."""
    if not node.inputs or node.inputs[0] is None:
        return None
    return at.replace(node, [node.inputs[0]])


def is_there(node: ir.Node, at: WritingOut) -> Made:
    """Replace OptionalHasElement: false without an input, true for a computed value."""
    value = node.inputs[0] if node.inputs else None
    if value is not None and (value.producer() is None and not value.is_initializer()):
        return None
    maker = value.producer() if value is not None else None
    if maker is not None and maker.op_type == "Optional":
        return None
    return at.replace(node, [at.constant(np.array(value is not None), f"{node.name}_is_there")])


def _entries(node: ir.Node, at: WritingOut) -> tuple[ir.Value, ...] | None:
    return at.entries(node.inputs[0]) if node.inputs else None


def _place(node: ir.Node, index: int, at: WritingOut, default: int) -> int | None:
    given = node.inputs[index] if len(node.inputs) > index else None
    return at.known.number(given) if given is not None else default
