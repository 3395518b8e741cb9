"""Declare graphs of a new opset as of an older one, where that changes nothing.

ONNX Runtime's CUDA provider has kernels of MaxPool, InstanceNormalization, Elu and others for the operators before
opset 22, and leaves those of newer graphs to the CPU; the newer definitions differ by a type.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx
import onnx_ir as ir

NEWEST_WITH_KERNELS = 21
"""The last opset whose definitions of these operators have kernels."""

UNCHANGED = frozenset(
    "Acos Acosh Asin Asinh Atan Atanh AveragePool Cast CastLike Celu Constant ConstantOfShape Conv ConvTranspose "
    "Cos Cosh DepthToSpace DequantizeLinear Dropout Einsum Elu EyeLike Flatten GlobalAveragePool GlobalLpPool "
    "GlobalMaxPool GridSample HardSigmoid HardSwish Identity If InstanceNormalization Loop LpNormalization LpPool "
    "MaxPool MaxUnpool Mish OneHot Pad QuantizeLinear ReduceLogSum ReduceLogSumExp Reshape Round Scan Selu Shape "
    "Sin Sinh Size Softplus Softsign SpaceToDepth Squeeze Tan ThresholdedRelu TopK Transpose Unsqueeze".split()
)
"""Operators that were redefined since, with more types or one more attribute, and compute the same.

Pooling: the newer text says which windows begin in the padding, which ONNX Runtime omitted before, too.
"""

TYPES = frozenset(
    getattr(ir.DataType, name)
    for name in "FLOAT DOUBLE FLOAT16 BOOL INT8 INT16 INT32 INT64 UINT8 UINT16 UINT32 UINT64 STRING UNDEFINED".split()
)
"""Types that the older definitions have wherever the newer ones do."""

DEFAULT_DOMAINS = ("", "ai.onnx")


def declare_older_opset(model: ir.Model) -> None:
    """Change the opset of ``model`` in place, if it is newer and its nodes are the same at the older one."""
    graph = model.graph
    version = max(graph.opset_imports.get(domain, 0) for domain in DEFAULT_DOMAINS)
    if version <= NEWEST_WITH_KERNELS or model.functions or not _same(graph.all_nodes(), version):
        return
    if any(value.dtype is not None and value.dtype not in TYPES for value in graph.initializers.values()):
        return
    for domain in DEFAULT_DOMAINS:
        if domain in graph.opset_imports:
            graph.opset_imports[domain] = NEWEST_WITH_KERNELS


def _same(nodes: Iterable[ir.Node], version: int) -> bool:
    """Return whether all ``nodes`` of opset ``version`` are defined at the older one, and compute the same there."""
    return all(node.domain not in DEFAULT_DOMAINS or _same_node(node, version) for node in nodes)


def _same_node(node: ir.Node, version: int) -> bool:
    if any(value.dtype is not None and value.dtype not in TYPES for value in node.outputs):
        return False
    try:
        newer = onnx.defs.get_schema(node.op_type, version, "")
        older = onnx.defs.get_schema(node.op_type, NEWEST_WITH_KERNELS, "")
    except onnx.defs.SchemaError:
        return False
    if older.since_version == newer.since_version:
        return True
    fits = set(node.attributes) <= set(older.attributes) and len(node.inputs) <= older.max_input
    return fits and node.op_type in UNCHANGED
