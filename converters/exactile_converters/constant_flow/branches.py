"""Replace ``If`` whose condition is constant by its branch, as ONNX Runtime does.

Exporters write ``If`` where the model's code checked a rank or a number of channels, which are known. A condition that
follows from the image's height or width is kept.
"""

from __future__ import annotations

import onnx_ir as ir

from exactile_converters.constant_flow.writing_out import WritingOut


def branch(node: ir.Node, at: WritingOut) -> list[ir.Node] | None:
    """Return new nodes of the main graph; None where the condition may change."""
    decision = at.known.number(node.inputs[0])
    if decision is None:
        return None
    chosen = node.attributes["then_branch" if decision else "else_branch"].as_graph()
    nodes, results = at.inline(node, chosen, ())
    return nodes + at.replace(node, results)
