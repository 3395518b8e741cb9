"""One graph at one tile shape in a fresh process: the peak memory that it takes, for ``memory_model.py``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from exactile.engines.onnx_runtime import OnnxRuntimeEngine, load_library
from exactile.engines.openvino import OpenVinoEngine
from exactile.engines.openvino_library import load_openvino
from exactile.machine.memory import peak_resident_bytes, resident_bytes


def work(request: dict[str, Any]) -> int:
    """Return bytes beyond the base. uint8 (H, W, 3) in, labels (H, W) uint8 out."""
    height, width = request["tile"]
    tile = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    out = np.ones((height, width), np.uint8)
    graph = Path(request["graph"]).read_bytes()
    load = load_openvino if request["engine"] == "openvino" else load_library
    load()  # part of the base, as the graph is that a model holds
    base = resident_bytes()
    engine = opened(request, graph)
    for _ in range(request["runs"]):
        engine.infer(tile, out)
    peak = peak_resident_bytes() - base
    engine.close()
    return peak


def opened(request: dict[str, Any], graph: bytes) -> OpenVinoEngine | OnnxRuntimeEngine:
    told: dict[str, Any] = {
        "input_name": request["names"][0],
        "output_name": request["names"][1],
        "tile_shape": tuple(request["tile"]),
        "threads": request["threads"],
    }
    if request["engine"] == "openvino":
        return OpenVinoEngine(graph, channels=3, **told)
    return OnnxRuntimeEngine(graph, activation_bytes=request["activations"], **told)


if __name__ == "__main__":
    print(json.dumps(work(json.load(sys.stdin))))
