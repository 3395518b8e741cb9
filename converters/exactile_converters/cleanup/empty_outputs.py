"""Drop empty outputs of nodes; with a name, they would be computed."""

from __future__ import annotations

import onnx_ir as ir


class DropEmptyOutputs(ir.passes.InPlacePass):
    """Drop empty outputs at the end of each node. Before opset 14, batch normalisation trains if it has several."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Drop them, also in subgraphs."""
        changed = False
        for node in model.graph.all_nodes():
            kept = len(node.outputs)
            while kept > 1 and not node.outputs[kept - 1].name and not node.outputs[kept - 1].uses():
                kept -= 1
            if kept < len(node.outputs):
                node.resize_outputs(kept)
                changed = True
        return ir.passes.PassResult(model, modified=changed)
