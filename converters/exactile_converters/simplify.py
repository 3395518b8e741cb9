"""One clean graph: constants folded, batch normalisation folded into convolutions, dropout and identities gone."""

from __future__ import annotations

import logging

import onnx_ir as ir
import onnxscript.optimizer
import onnxscript.rewriter
from onnx_ir.passes import common as passes
from onnxscript.rewriter.rules import common as rules

from exactile_converters.from_onnx import Network

LARGEST_FOLDED_BYTES = 1 << 20
"""Constants that folding may make; larger ones stay as they are computed."""


def simplify(network: Network) -> None:
    """Clean the graph of ``network`` in place. Its image input and result output stay what they are."""
    model = network.model
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        _drop_dropout(model)
        onnxscript.optimizer.optimize_ir(
            model, input_size_limit=LARGEST_FOLDED_BYTES, output_size_limit=LARGEST_FOLDED_BYTES
        )
        onnxscript.rewriter.rewrite(
            model,
            pattern_rewrite_rules=[
                rules.fuse_batchnorm_into_conv_rule,
                rules.fuse_batchnorm_into_conv_transpose_rule,
                rules.fuse_batchnorm_into_gemm_rule,
            ],
        )
        for step in (
            passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
            passes.DeduplicateInitializersPass(),
            passes.IdentityEliminationPass(),
            passes.RemoveUnusedNodesPass(),
            passes.TopologicalSortPass(),
        ):
            step(model)
    finally:
        logging.disable(before)


def _drop_dropout(model: ir.Model) -> None:
    """Dropout does nothing outside training, also where an exporter left a training flag of False beside it."""
    for node in list(model.graph):
        if node.op_type == "Dropout" and node.inputs[0] is not None:
            node.outputs[0].replace_all_uses_with(node.inputs[0], replace_graph_outputs=True)
