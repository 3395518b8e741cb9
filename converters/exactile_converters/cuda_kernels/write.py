"""Write a graph as ONNX Runtime's CUDA provider takes it. It computes the same, also on a CPU."""

from __future__ import annotations

import onnx_ir as ir

from exactile_converters.cuda_kernels.older_opset import declare_older_opset
from exactile_converters.cuda_kernels.symmetric_padding import write_symmetric_padding


def write_for_provider(model: ir.Model) -> None:
    """Change ``model`` in place; automatic padding must be written as numbers before."""
    write_symmetric_padding(model.graph)
    declare_older_opset(model)
