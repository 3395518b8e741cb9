"""ONNX Runtime's own operators that are rewritten as ONNX's, and those that run on no other processor."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from exactile.errors import ModelError
from exactile_converters.geometry.sliding import RUNTIME_DOMAIN
from exactile_converters.runtime_operators import channels_last, fused
from exactile_converters.runtime_operators.writer import Writer

MAP_SCALE_ZERO = 3
BLOCKED_DOMAIN = "com.microsoft.nchwc"
"""Operators on maps in blocks of channels, as many as one kind of processor computes at once."""

Rewriting = Callable[[ir.Node, Writer], ir.Value | None]

_REWRITINGS: dict[str, Rewriting] = {
    "FusedConv": fused.convolution,
    "FusedGemm": fused.dense,
    "NhwcMaxPool": channels_last.max_pool,
    "Pad": lambda node, write: write.copy("Pad", node.inputs, node.attributes),
    "QLinearAveragePool": channels_last.average_pool,
    "QLinearConv": channels_last.convolution,
    "SkipLayerNormalization": fused.skip_normalization,
    "SkipSimplifiedLayerNormalization": fused.skip_normalization,
}


def write_as_onnx(model: ir.Model) -> int:
    """Replace ONNX Runtime's own operators that have an ONNX equivalent; return how many there were.

    The others are kept, including those that round differently from any ONNX operator.
    """
    written = 0
    for node in list(model.graph.all_nodes()):
        rewriting = _REWRITINGS.get(node.op_type) if node.domain == RUNTIME_DOMAIN else None
        if rewriting is None:
            continue
        write = Writer(node)
        value = rewriting(node, write)
        if value is not None:
            write.replace(value)
            written += 1
    return written


def refuse_unusable(model: ir.Model, name: str) -> None:
    """Raise ModelError for operators optimised for one kind of processor, and those that abort the process."""
    for node in model.graph.all_nodes():
        if node.op_type == "QLinearConcat" and (None in node.inputs or len(node.inputs) % MAP_SCALE_ZERO != 2):
            raise ModelError(
                f"{name}: node {node.name!r} (QLinearConcat) has no scale or zero point for one of its maps; quantise "
                "the network again"
            )
        if node.domain == BLOCKED_DOMAIN:
            raise ModelError(
                f"{name}: ONNX Runtime has optimised it for one kind of processor (node {node.name!r} is "
                f"{node.op_type} of {BLOCKED_DOMAIN}, on blocks of channels). Give the original model, or save "
                "the optimised one with ORT_ENABLE_EXTENDED instead of ORT_ENABLE_ALL"
            )
