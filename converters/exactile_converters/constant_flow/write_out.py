"""Unroll all control flow and all sequences of a graph that are the same for every image."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from exactile_converters.constant_flow import branches, loops, sequences
from exactile_converters.constant_flow.steady import Shapes
from exactile_converters.constant_flow.writing_out import WritingOut

MOST_STEPS = 50_000
"""Most nodes that are visited."""

MOST_TRIALS = 4

Handler = Callable[[ir.Node, WritingOut], list[ir.Node] | None]

_HANDLERS: dict[str, Handler] = {
    "ConcatFromSequence": sequences.concatenate,
    "Identity": sequences.same,
    "If": branches.branch,
    "Loop": loops.loop,
    "Optional": sequences.optional,
    "OptionalGetElement": sequences.optional,
    "OptionalHasElement": sequences.is_there,
    "SequenceAt": sequences.pick,
    "SequenceConstruct": sequences.construct,
    "SequenceEmpty": sequences.empty,
    "SequenceErase": sequences.erase,
    "SequenceInsert": sequences.insert,
    "SequenceLength": sequences.length,
    "SequenceMap": loops.sequence_map,
    "SplitToSequence": sequences.split,
}


def write_out_constant_flow(model: ir.Model, image: ir.Value, shapes: Shapes) -> int:
    """Replace in the main graph, which must be sorted, what is the same for all images of ``shapes``; return the count.

    Nodes that became unused are kept. A loop of which not all rounds can be unrolled is unchanged: a copy is tried
    first.
    """
    if not any(node.op_type in _HANDLERS and node.op_type != "Identity" for node in model.graph):
        return 0
    left: set[str] = set()
    loops = {node.name or "" for node in model.graph.all_nodes() if node.op_type == "Loop"}
    for _trial in range(MOST_TRIALS if loops else 0):
        trial = model.clone()
        stuck = _write_out(WritingOut(trial, image, shapes, left), trial)[1]
        if not stuck:
            break
        left |= stuck
    else:
        left = loops
    return _write_out(WritingOut(model, image, shapes, left), model)[0]


def _write_out(at: WritingOut, model: ir.Model) -> tuple[int, set[str]]:
    """Return how many nodes were replaced, and the loops that were begun but not finished."""
    waiting, written = list(reversed(list(model.graph))), 0
    for _step in range(MOST_STEPS):
        if not waiting:
            break
        node = waiting.pop()
        handler = _HANDLERS.get(node.op_type) if not node.domain else None
        made = handler(node, at) if handler is not None else None
        if made is None:
            at.known.visit(node)
        else:
            waiting += reversed(made)
            written += 1
    return written, set(at.rounds)
