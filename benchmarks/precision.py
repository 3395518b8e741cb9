"""What fewer bits bring on this CPU: time, labels that change and weights, for the trained U-Net and a larger one.

``python benchmarks/precision.py [--rounds 5]``: one pass over 1024 x 1024 pixels in FP32, FP16 and INT8 (calibrated by
percentiles), in turn in one process; ratios are medians over rounds of the time by FP32's in the same round.
"""

from __future__ import annotations

import argparse
import io
import statistics
import sys
from pathlib import Path

import numpy as np
import onnx
import torch
from skimage import data

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.machine import describe_machine
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource
from exactile_converters.deploy import Normalization, deploy
from exactile_converters.from_onnx import Network, load_network, prepare_network
from exactile_converters.precision import PRECISIONS, at_precision, compare_labels, crops_of
from exactile_converters.simplify import simplify
from exactile_converters.torch_export import export_onnx
from models.unet import UNet

NORMALIZATION = Normalization(scale=(255.0,), mean=(0.5,), std=(0.25,))
SIDE = 1024


def large() -> Network:
    torch.manual_seed(0)
    buffer = io.BytesIO()
    net = UNet(3, 3, features=32, depth=4).eval()
    with torch.no_grad():  # so that all classes occur
        net.head.bias -= net(torch.randn(1, 3, 256, 256)).mean((0, 2, 3))
    export_onnx(net, buffer, 3)
    return prepare_network(onnx.load_from_string(buffer.getvalue()), name="U-Net, 32 features, random weights")


def measure(network: Network, image: np.ndarray, rounds: int) -> list[str]:
    simplify(network)
    crops = crops_of([ArraySource(image)], network, NORMALIZATION)
    networks = {precision: at_precision(network, precision, crops, "percentile") for precision in PRECISIONS}
    models = {
        precision: deploy(found, image_dtype="uint8", normalization=NORMALIZATION, strips=False)
        for precision, found in networks.items()
    }
    seconds: dict[str, list[float]] = {precision: [] for precision in PRECISIONS}
    for turn in range(rounds + 1):
        for precision, model in models.items():
            summary = Session(model).segment(ArraySource(image), ArraySink(), plan="whole")
            if turn:
                seconds[precision].append(summary.seconds.infer)
    lines = []
    for precision, model in models.items():
        ratio = statistics.median(a / b for a, b in zip(seconds[precision], seconds["fp32"], strict=True))
        found = compare_labels(models["fp32"], model, crops)
        iou = ", ".join("-" if value is None else f"{value:.4f}" for value in found.iou)
        lines.append(
            f"| {network.name} | {precision} | {statistics.median(seconds[precision]):.2f} | {ratio:.2f} "
            f"| {found.different_labels / found.pixels:.3%} | {iou} | {len(model.graph) / 1024:.0f} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    tissue = np.tile(data.immunohistochemistry(), (SIDE // 512, SIDE // 512, 1))[:SIDE, :SIDE].copy()
    trained = load_network(Path(__file__).parent.parent / "models" / "stain_unet.onnx")
    lines = measure(trained, tissue, options.rounds) + measure(large(), tissue, options.rounds)
    print(describe_machine())
    print(f"\nCommand: `python benchmarks/precision.py --rounds {options.rounds}`; {SIDE} x {SIDE} pixels, one pass.\n")
    print("| network | precision | seconds | by FP32 | labels that differ | IoU by class | graph KiB |")
    print("|---|---|---|---|---|---|---|")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
