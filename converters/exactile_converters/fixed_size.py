"""A model exported at one image size is made to take any: sizes baked into it become factors."""

from __future__ import annotations

from typing import cast

import onnx_ir as ir

from exactile_converters.geometry.node_view import Labels
from exactile_converters.geometry.probe import Probe


def release_fixed_size(model: ir.Model, image: ir.Value, labels: Labels) -> None:
    """Let height and width of a model exported at one size vary: resize by factors instead of to sizes."""
    dims = list(image.shape) if image.shape is not None else []
    sizes = [1 if label == "n" else dim for dim, label in zip(dims, labels, strict=True)]
    resizes = [node for node in model.graph if node.op_type == "Resize" and len(node.inputs) > 3]
    if not resizes or not all(isinstance(size, int) for size in sizes):
        return
    probe = Probe(model, image.name or "", tuple(cast("int", size) for size in sizes))
    for node in resizes:
        fact, grown = probe.of(node.inputs[0]), probe.of(node.outputs[0])
        if fact is None or grown is None or fact.shape is None or grown.shape is None:
            continue
        factors = [out / size for out, size in zip(grown.shape, fact.shape, strict=True)]
        scales = ir.Value(name=f"{node.outputs[0].name}_scales", const_value=ir.tensor(factors, ir.DataType.FLOAT))
        model.graph.register_initializer(scales)
        node.replace_input_with(2, scales)
        node.replace_input_with(3, None)
