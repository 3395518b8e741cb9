"""Mark graphs with nodes that the CUDA provider accepts but may compute differently; they are refused on a GPU.

The provider runs average pooling with equal padding on both sides in cuDNN, which does not round sizes up: where
padding is counted, it divides by the whole window even if it exceeds the padding, while the operator divides by the
part within. Average pooling with other padding, with dilation, or that excludes padding is not affected.

Dilated max pooling is the provider's own kernel, which read pixels between the intended ones where the window begins in
the padding (issue 29637 of ONNX Runtime); the issue is closed, but no version is known to be right.
"""

from __future__ import annotations

from typing import Any

import onnx
from onnx import helper

from exactile.engines.onnx_runtime_cuda import NOT_ON_CUDA


def doubt(model: onnx.ModelProto) -> str:
    """Return what ONNX Runtime on a GPU may compute differently in ``model``; "" if nothing."""
    for node in model.graph.node:
        given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        name = node.name or node.output[0]
        if node.op_type == "AveragePool" and given.get("ceil_mode", 0) and given.get("count_include_pad", 0):
            return f"AveragePool ({name!r}) rounds its size up and counts padding, which cuDNN computes differently"
        if node.op_type == "MaxPool" and _begins_in_padding(given):
            return f"MaxPool ({name!r}) is dilated and padded, which versions of the provider compute differently"
    return ""


def _begins_in_padding(given: dict[str, Any]) -> bool:
    """Return whether a dilated pooling window may begin before the first pixel."""
    pads, dilations = list(given.get("pads", ())), list(given.get("dilations", ()))
    before = pads[: len(pads) // 2] or [0] * len(dilations)
    automatic = given.get("auto_pad", b"NOTSET") in (b"SAME_UPPER", b"SAME_LOWER")
    return any(step > 1 and (pad > 0 or automatic) for step, pad in zip(dilations, before, strict=False))


def mark_doubt(model: onnx.ModelProto) -> None:
    """Write the doubt, if any, into the metadata of ``model``, in place."""
    said = doubt(model)
    if said:
        entry = model.metadata_props.add()
        entry.key, entry.value = NOT_ON_CUDA, said
