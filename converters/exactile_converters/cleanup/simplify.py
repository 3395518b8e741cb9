"""Simplify a graph: fold constants, fold batch normalisation into convolutions, remove dropout and identities."""

from __future__ import annotations

import logging

import onnx_ir as ir
from onnx_ir.passes import common as passes
from onnxscript import optimizer, rewriter
from onnxscript.rewriter.rules import common as rules

from exactile_converters.networks.network import Network

LARGEST_FOLDED_BYTES = 1 << 20
"""Largest constant that folding may create; larger ones are computed at run time."""
ROUNDS = 2
"""Rounds of folding and rewriting, each of which enables the other."""
NO_OPS = rewriter.RewriteRuleSet([rules.mul_by_1_rule, rules.add_0_rule], commute=True).rules
RULES = (
    *(*NO_OPS, rules.sub_0_rule, rules.div_by_1_rule, rules.dropout_zero_rule, rules.dropout_inference_rule),
    *(rules.two_reshapes_matmul_reshape_rule, rules.one_reshape_matmul_reshape_rule),
    *(rules.cast_constant_of_shape_rule, rules.cast_constant_of_shape_without_value_rule),
    *(rules.collapse_slice_rule, rules.collapse_slice2_rule, rules.materialize_reshape_shape_rule),
    *(rules.min_min_rule, rules.max_max_rule, rules.min_max_rule, rules.max_min_rule),
    *(rules.successive_clip_relu_rule, rules.successive_relu_clip_rule),
    *(rules.successive_relu_rule, rules.successive_clip_rule),
    *(rules.cast_cast_rule, rules.no_op_cast_rule, rules.no_op_expand_rule),
    *(rules.flatten_to_reshape_rule, rules.reshape_reshape_rule),
    *(rules.no_op_transpose_rule, rules.transpose_transpose_rule),
    *(rules.unsqueeze_unsqueeze_rule, rules.squeeze_reshape_1d_rule),
    *(rules.normalize_pad_format_conv_rule, rules.fuse_pad_into_conv_rule),
    *(rules.fuse_batchnorm_into_conv_rule, rules.fuse_batchnorm_into_conv_transpose_rule),
    *(rules.fuse_batchnorm_into_gemm_rule, rules.remove_optional_bias_from_conv_rule),
    *(rules.remove_optional_bias_from_conv_transpose_rule, rules.remove_optional_bias_from_gemm_rule),
)
"""onnxscript's default rules for networks that are not quantized, without ``slice_split_rule``: it takes two slices for
halves even if they are not."""


def simplify(network: Network) -> None:
    """Clean the graph of ``network`` in place. Its image input and result output are unchanged."""
    model = network.model
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        _drop_dropout(model)
        passes.InlinePass()(model)
        for _ in range(ROUNDS):
            optimizer.fold_constants_ir(
                model,
                onnx_shape_inference=True,
                input_size_limit=LARGEST_FOLDED_BYTES,
                output_size_limit=LARGEST_FOLDED_BYTES,
            )
            rewriter.rewrite(model, pattern_rewrite_rules=RULES)
        for step in (
            passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
            passes.LiftSubgraphInitializersToMainGraphPass(),
            passes.DeduplicateInitializersPass(),
            passes.CommonSubexpressionEliminationPass(),
            passes.OutputFixPass(),
            passes.NameFixPass(),
            passes.IdentityEliminationPass(),
            passes.RemoveUnusedNodesPass(),
            passes.TopologicalSortPass(),
        ):
            step(model)
    finally:
        logging.disable(before)


def _drop_dropout(model: ir.Model) -> None:
    """Remove Dropout, which does nothing outside training, even if an exporter left a training flag of False."""
    for node in list(model.graph):
        if node.op_type == "Dropout" and node.inputs[0] is not None:
            node.outputs[0].replace_all_uses_with(node.inputs[0], replace_graph_outputs=True)
