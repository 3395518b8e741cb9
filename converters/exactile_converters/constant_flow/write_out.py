"""All control flow and all sequences of a graph that are the same for every image."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from exactile_converters.constant_flow import branches, loops, sequences
from exactile_converters.constant_flow.writing_out import WritingOut
from exactile_converters.geometry.node_view import Labels

MOST_STEPS = 200_000

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


def write_out_constant_flow(model: ir.Model, image: ir.Value, labels: Labels, channels: int) -> int:
    """Replace in the main graph, which must be sorted, what can be; how many nodes that were.

    Nodes that became unused stay.
    """
    if not any(node.op_type in _HANDLERS and node.op_type != "Identity" for node in model.graph):
        return 0
    at = WritingOut(model, image, labels, channels)
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
    return written
