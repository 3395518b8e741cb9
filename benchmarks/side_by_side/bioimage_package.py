"""The network as a BioImage.IO package (format 0.5), with the halo that its author would give."""

from __future__ import annotations

from pathlib import Path
from shutil import copyfile
from typing import Any

import numpy as np
import onnxruntime
import yaml

SIDE = 256
"""Side of the test image that a package must have."""


def write_package(folder: Path, network: Path, *, halo: int, stride: int, channels: int, classes: int) -> None:
    """Write ``folder/rdf.yaml`` and what it names. (1, C, H, W) samples as stored -> (1, K, H, W) scores."""
    folder.mkdir()
    copyfile(network, folder / "weights.onnx")
    image = np.random.default_rng(0).integers(0, 256, (1, channels, SIDE, SIDE)).astype(np.float32)
    session = onnxruntime.InferenceSession(folder / "weights.onnx")
    np.save(folder / "image.npy", image)
    np.save(folder / "scores.npy", session.run(None, {"image": image / 255})[0])
    (folder / "README.md").write_text("# A U-Net with random weights")
    (folder / "rdf.yaml").write_text(yaml.safe_dump(_description(halo, stride, channels, classes), sort_keys=False))


def _description(halo: int, stride: int, channels: int, classes: int) -> dict[str, Any]:
    def axes(names: list[str], space: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"type": "batch"}, {"type": "channel", "channel_names": names}, *space]

    size = {"min": 2 * halo + stride, "step": stride}
    inside = [{"type": "space", "id": axis, "size": size} for axis in "yx"]
    outside = [
        {"type": "space", "id": axis, "size": {"tensor_id": "image", "axis_id": axis}, "halo": halo} for axis in "yx"
    ]
    return {
        "format_version": "0.5.3",
        "type": "model",
        "name": "UNet with random weights",
        "description": "for measuring",
        "authors": [{"name": "The exactile authors"}],
        "license": "Apache-2.0",
        "documentation": "README.md",
        "inputs": [
            {
                "id": "image",
                "axes": axes([f"c{index}" for index in range(channels)], inside),
                "data": {"type": "float32"},
                "test_tensor": {"source": "image.npy"},
                "preprocessing": [{"id": "scale_linear", "kwargs": {"gain": 1 / 255, "offset": 0.0}}],
            }
        ],
        "outputs": [
            {
                "id": "scores",
                "axes": axes([f"k{index}" for index in range(classes)], outside),
                "data": {"type": "float32"},
                "test_tensor": {"source": "scores.npy"},
            }
        ],
        "weights": {"onnx": {"source": "weights.onnx", "opset_version": 17}},
    }
