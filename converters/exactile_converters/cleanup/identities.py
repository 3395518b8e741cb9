"""Remove Identity nodes of the main graph; those in subgraphs pass on values of other graphs, and are kept."""

from __future__ import annotations

import onnx_ir as ir


class DropIdentities(ir.passes.InPlacePass):
    """Remove Identity nodes. A graph output keeps its name: the identity's input gets it, unless its own is needed."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Remove all of them, in order."""
        dropped = [node for node in model.graph if node.op_type == "Identity" and not node.domain and _drop(node)]
        model.graph.remove(dropped, safe=True)
        return ir.passes.PassResult(model, modified=bool(dropped))


def _drop(node: ir.Node) -> bool:
    """Remove one, and return whether no node reads it any longer."""
    source, result = node.inputs[0], node.outputs[0]
    if source is None:
        return False
    is_output = result.is_graph_output()
    if is_output and (source.is_graph_input() or source.is_initializer() or source.is_graph_output()):
        return False
    if source.type is None:
        source.type = result.type
    if source.shape is None:
        source.shape = result.shape
    result.replace_all_uses_with(source, replace_graph_outputs=True)
    if is_output:
        source.name, result.name = result.name, source.name
    return True
