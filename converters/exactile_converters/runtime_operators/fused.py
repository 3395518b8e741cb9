"""Split operators that compute several others at once: ONNX Runtime fuses them again when it opens the model."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from exactile_converters.runtime_operators.writer import Writer

PLAIN_ACTIVATIONS = frozenset("HardSwish Relu Sigmoid Softplus Softsign Tanh".split())
PARAMETERS = {
    "Elu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
    "LeakyRelu": ("alpha",),
    "Selu": ("alpha", "gamma"),
    "ThresholdedRelu": ("alpha",),
}
"""Attributes in the order in which a fused convolution lists them."""

SKIP_EPSILON = 1e-12
ACTIVATION = ("activation", "activation_params", "activation_alpha", "activation_beta", "activation_gamma")


def convolution(node: ir.Node, write: Writer) -> ir.Value | None:
    """Split into a convolution, an addition of a map of the same size, and an activation."""
    image, weight, bias, other = (*node.inputs, None, None, None)[:4]
    kept = {name: attribute for name, attribute in node.attributes.items() if name not in ACTIVATION}
    name = node.attributes.get_string("activation", "") or ""
    numbers = [float(number) for number in node.attributes.get_floats("activation_params", ())]
    if not _is_known(name):
        return None
    made = write.copy("Conv", (image, weight, bias), kept)
    if other is not None:
        made = write.add("Add", made, other)
    return _activated(made, name, numbers, write)


def dense(node: ir.Node, write: Writer) -> ir.Value | None:
    """Split into Gemm and an activation."""
    kept = {name: attribute for name, attribute in node.attributes.items() if name not in ACTIVATION}
    name = node.attributes.get_string("activation", "") or ""
    if not _is_known(name) or name == "Clip":
        return None
    numbers = [
        node.attributes.get_float(f"activation_{parameter}", 0.0) or 0.0
        for parameter in PARAMETERS.get(name, ())
        if f"activation_{parameter}" in node.attributes
    ]
    return _activated(write.copy("Gemm", node.inputs, kept), name, numbers, write)


def _is_known(name: str) -> bool:
    return not name or name == "Clip" or name in PLAIN_ACTIVATIONS or name in PARAMETERS


def _activated(value: ir.Value, name: str, numbers: list[float], write: Writer) -> ir.Value:
    if name == "Clip":
        low, high = (write.constant(np.array(number, np.float32)) for number in numbers)
        return write.add("Clip", value, low, high)
    given = dict(zip(PARAMETERS.get(name, ()), numbers, strict=False))
    return write.add(name, value, **given) if name else value


def skip_normalization(node: ir.Node, write: Writer) -> ir.Value | None:
    """Split into the sum of two maps and a bias, and a normalisation over the last axis."""
    if any(output.name and (output.uses() or output.is_graph_output()) for output in node.outputs[1:]):
        return None
    simple = node.op_type == "SkipSimplifiedLayerNormalization"
    image, skip, scale, *more = (*node.inputs, None, None)
    shift, bias = (None, more[0]) if simple else (more[0], more[1])
    total = write.add("Add", image, skip)
    if bias is not None:
        total = write.add("Add", total, bias)
    epsilon = node.attributes.get_float("epsilon", SKIP_EPSILON) or 0.0
    op = "SimplifiedLayerNormalization" if simple else "LayerNormalization"
    return write.add(op, total, scale, shift, axis=-1, epsilon=epsilon)
