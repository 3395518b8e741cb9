"""Nodes that the CUDA provider takes and may compute otherwise: said in the graph, which is refused on a GPU then.

The provider gives average pooling to cuDNN where both sides are padded alike. cuDNN rounds no size up: where padding is
counted it divides by all of a window that goes beyond the padding, and the operator by what lies within. Average
pooling with other padding, with dilation, or that leaves padding out is not concerned.

Dilated max pooling is a kernel of the provider's own, which began with pixels between those that are meant where the
window begins in the padding (issue 29637 of ONNX Runtime); it is closed, and no version is known to be right.
"""

from __future__ import annotations

from typing import Any

import onnx
from onnx import helper

from exactile.engines.onnx_runtime_cuda import NOT_ON_CUDA


def doubt(model: onnx.ModelProto) -> str:
    """What of ``model`` ONNX Runtime on a GPU may compute otherwise; "" where there is nothing."""
    for node in model.graph.node:
        given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        name = node.name or node.output[0]
        if node.op_type == "AveragePool" and given.get("ceil_mode", 0) and given.get("count_include_pad", 0):
            return f"AveragePool ({name!r}) rounds its size up and counts padding, which cuDNN does otherwise"
        if node.op_type == "MaxPool" and _begins_in_padding(given):
            return f"MaxPool ({name!r}) is dilated and padded, which versions of the provider do otherwise"
    return ""


def _begins_in_padding(given: dict[str, Any]) -> bool:
    """Whether a dilated window of pooling may begin before the first pixel."""
    pads, dilations = list(given.get("pads", ())), list(given.get("dilations", ()))
    before = pads[: len(pads) // 2] or [0] * len(dilations)
    automatic = given.get("auto_pad", b"NOTSET") in (b"SAME_UPPER", b"SAME_LOWER")
    return any(step > 1 and (pad > 0 or automatic) for step, pad in zip(dilations, before, strict=False))


def mark_doubt(model: onnx.ModelProto) -> None:
    """Write the doubt into the metadata of ``model``, in place, where there is one."""
    said = doubt(model)
    if said:
        entry = model.metadata_props.add()
        entry.key, entry.value = NOT_ON_CUDA, said
