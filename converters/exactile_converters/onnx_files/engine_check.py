"""Check that a model is valid. ONNX Runtime decides, since it runs the model."""

from __future__ import annotations

import onnx
import onnxruntime as ort

from exactile.errors import ModelError
from exactile_converters.onnx_files.untrusted import with_subgraphs

DEFAULT_DOMAINS = ("", "ai.onnx")
LARGEST_CHECKED_BYTES = (2 << 30) - (64 << 20)


def name_default_domain(proto: onnx.ModelProto, name: str) -> None:
    """Give ONNX's own operators the short name of their domain, which may also be written as ai.onnx.

    Raises ModelError where the domain is imported at two opsets.
    """
    functions = (node for function in proto.functions for node in function.node)
    for node in with_subgraphs([*proto.graph.node, *functions]):
        if node.domain == "ai.onnx":
            node.domain = ""
    for owner in (proto, *proto.functions):
        imports = [entry for entry in owner.opset_import if entry.domain in DEFAULT_DOMAINS]
        for entry in imports:
            entry.domain = ""
        for entry in imports[1:]:
            if entry.version != imports[0].version:
                raise ModelError(
                    f"{name}: the operators of ONNX are imported at opset {imports[0].version} and at {entry.version}; "
                    "export the model again with one of them"
                )
            owner.opset_import.remove(entry)


def check_model(proto: onnx.ModelProto) -> None:
    """Return if ONNX's checker accepts ``proto``, or ONNX Runtime opens it. Raises the checker's error."""
    try:
        onnx.checker.check_model(proto)
    except Exception:
        if not _opens(proto):
            raise


def _opens(proto: onnx.ModelProto) -> bool:
    if proto.ByteSize() > LARGEST_CHECKED_BYTES:
        return False
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception:  # noqa: BLE001 - whatever it raises, it does not open
        return False
    return True
