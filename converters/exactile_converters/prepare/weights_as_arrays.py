"""Hold weights as arrays: each use of a weight in a protobuf message copies it again."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.serde import TensorProtoTensor


def hold_weights_as_arrays(model: ir.Model) -> None:
    """Read each initialiser of the main graph once, in place; its protobuf message is then no longer needed."""
    for value in model.graph.initializers.values():
        stored = value.const_value
        if isinstance(stored, TensorProtoTensor) and stored.dtype != ir.DataType.STRING:
            value.const_value = ir.Tensor(
                stored.numpy(), dtype=stored.dtype, name=stored.name, doc_string=stored.doc_string
            )
