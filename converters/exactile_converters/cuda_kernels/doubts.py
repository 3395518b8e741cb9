"""Nodes that the CUDA provider takes and may compute otherwise: said in the graph, which is refused on a GPU then.

The provider gives average pooling to cuDNN where both sides are padded alike. cuDNN rounds no size up: where padding is
counted it divides by all of a window that goes beyond the padding, and the operator by what lies within. Average
pooling with other padding, with dilation, or that leaves padding out is not concerned.
"""

from __future__ import annotations

import onnx
from onnx import helper

from exactile.engines.onnx_runtime_cuda import NOT_ON_CUDA


def doubt(model: onnx.ModelProto) -> str:
    """What of ``model`` ONNX Runtime on a GPU may compute otherwise; "" where there is nothing."""
    for node in model.graph.node:
        given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        if node.op_type == "AveragePool" and given.get("ceil_mode", 0) and given.get("count_include_pad", 0):
            name = node.name or node.output[0]
            return f"AveragePool ({name!r}) rounds its size up and counts padding, which cuDNN does otherwise"
    return ""


def mark_doubt(model: onnx.ModelProto) -> None:
    """Write the doubt into the metadata of ``model``, in place, where there is one."""
    said = doubt(model)
    if said:
        entry = model.metadata_props.add()
        entry.key, entry.value = NOT_ON_CUDA, said
