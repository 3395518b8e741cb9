"""Outputs that a node leaves out stay left out: under a name, they would be asked for."""

from __future__ import annotations

import onnx_ir as ir


class DropEmptyOutputs(ir.passes.InPlacePass):
    """Those at the end of a node's list. Before opset 14, batch normalisation trains where it has more than one."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Also in subgraphs."""
        changed = False
        for node in model.graph.all_nodes():
            kept = len(node.outputs)
            while kept > 1 and not node.outputs[kept - 1].name and not node.outputs[kept - 1].uses():
                kept -= 1
            if kept < len(node.outputs):
                node.resize_outputs(kept)
                changed = True
        return ir.passes.PassResult(model, modified=changed)
