"""The network as files for all contenders, and the image."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import tifffile
import torch
from skimage import data

from benchmarks.harness.worker import ROOT
from benchmarks.networks import CHANNELS, CLASSES, exported, unet
from benchmarks.side_by_side.bioimage_package import write_package

DEPTH, STRIDE = 4, 16
PAPER_HALO = 96
"""Eq. 1 of Majurski & Bajcsy for this network, 92, rounded up to the stride."""


def write_network(folder: Path, features: int) -> Path:
    """Write a U-Net of depth 4 as ONNX, as a torch state dict, as a BioImage.IO package and as bundles; return the
    folder.
    """
    net = unet(features, DEPTH, torch.from_numpy(tissue(256)).permute(2, 0, 1)[None] / 255)
    folder.mkdir(parents=True)
    torch.save(net.state_dict(), folder / "weights.pth")
    said = {"features": features, "depth": DEPTH, "channels": CHANNELS, "classes": CLASSES}
    (folder / "network.json").write_text(json.dumps(said))
    (folder / "network.onnx").write_bytes(exported(net))
    write_package(
        folder / "package", folder / "network.onnx", halo=PAPER_HALO, stride=STRIDE, channels=CHANNELS, classes=CLASSES
    )
    for output, name in (("labels", "labels.bundle"), ("raw", "scores.bundle")):
        command = [sys.executable, "-m", "exactile", "convert", folder / "network.onnx", "-o", folder / name]
        command += ["--scale", "255", "--output", output]
        subprocess.run(list(map(str, command)), check=True, capture_output=True, cwd=ROOT)
    return folder


def tissue(side: int) -> np.ndarray:
    """Return (side, side, 3) uint8: a stained section, mirrored again and again."""
    section = data.immunohistochemistry()
    both = np.concatenate([section, section[::-1]], axis=0)
    block = np.concatenate([both, both[:, ::-1]], axis=1)
    repeat = -(-side // block.shape[0])
    return np.tile(block, (repeat, repeat, 1))[:side, :side].copy()


def write_image(path: Path, side: int) -> Path:
    """Write a tiled deflate TIFF, as many whole-slide exports are."""
    tifffile.imwrite(path, tissue(side), tile=(256, 256), compression="zlib", photometric="rgb", bigtiff=True)
    return path
