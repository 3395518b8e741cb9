"""One graph at one tile shape in a fresh process: the peak memory that it takes, for ``memory_model.py``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime  # noqa: F401  # part of the base

from exactile.engines.onnx_runtime import OnnxRuntimeEngine
from exactile.memory import peak_resident_bytes, resident_bytes


def work(request: dict[str, Any]) -> int:
    """Bytes beyond the base. uint8 (H, W, 3) in, labels (H, W) uint8 out."""
    height, width = request["tile"]
    tile = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    out = np.ones((height, width), np.uint8)
    base = resident_bytes()
    engine = OnnxRuntimeEngine(
        Path(request["graph"]).read_bytes(),
        input_name=request["names"][0],
        output_name=request["names"][1],
        tile_shape=(height, width),
        threads=request["threads"],
        activation_bytes=request["activations"],
    )
    for _ in range(request["runs"]):
        engine.infer(tile, out)
    peak = peak_resident_bytes() - base
    engine.close()
    return peak


if __name__ == "__main__":
    print(json.dumps(work(json.load(sys.stdin))))
