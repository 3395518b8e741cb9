"""``python -m tests.cuda_runtime.placement GRAPHS``: where the real ONNX Runtime would put the nodes of graphs.

``GRAPHS`` is a pickle of [(graph, {dimension: size})]. Prints a JSON list: of each graph the operators that are left to
the CPU, or the error. In a process with the real library, see ``library.py``.
"""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from typing import Any

CUDA = "CUDAExecutionProvider"


def left_to_the_cpu(ort: Any, graph: bytes, sizes: dict[str, int]) -> list[str]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    for name, size in sizes.items():
        options.add_free_dimension_override_by_name(name, size)
    session = ort.InferenceSession(graph, options, providers=[(CUDA, {"user_compute_stream": "4096"})])
    assert session.get_providers()[0] == CUDA
    parts = session.get_provider_graph_assignment_info()
    return sorted({node.op_type for part in parts if part.ep_name != CUDA for node in part.get_nodes()})


def main(path: Path) -> None:
    import onnxruntime

    found: list[list[str] | str] = []
    for graph, sizes in pickle.loads(path.read_bytes()):
        try:
            found.append(left_to_the_cpu(onnxruntime, graph, sizes))
        except Exception as error:  # noqa: BLE001  # its exceptions share no base class
            found.append(str(error)[:300])
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
