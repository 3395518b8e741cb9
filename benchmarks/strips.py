"""What exactness costs: strips and exact tiles against the fastest inexact way, in one process and in turn.

``python benchmarks/strips.py [--features 16 64] [--size 2048x1024] [--rounds 3]`` runs a U-Net of depth 4 (as in the
paper, "same" padding, batch normalisation) over an image in memory. The floor is the fastest of one whole pass and
naive tiles of 256, 512 and 1024 pixels, laid side by side without halo: their results are wrong at every seam. Every
figure is the time by the floor of its round; the table has medians. Opening the engine is timed apart from the run.
"""

from __future__ import annotations

import argparse
import gc
import io
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.machine import describe_machine
from exactile.contract import DeployedModel
from exactile.engines.onnx_runtime import OnnxRuntimeEngine
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource
from exactile_converters.deploy import Normalization, deploy
from exactile_converters.from_onnx import prepare_network
from exactile_converters.torch_export import export_onnx
from models.unet import UNet

NAIVE = (256, 512, 1024)
EXACT_TILES = (512, 1024)


def network(features: int) -> DeployedModel:
    torch.manual_seed(0)
    buffer = io.BytesIO()
    net = UNet(3, 3, features=features, depth=4).eval()
    with torch.no_grad():  # so that all classes occur, and labels tell a seam
        scores = net(torch.rand(1, 3, 256, 256))
        net.head.bias -= scores.mean((0, 2, 3))
    export_onnx(net, buffer, 3)
    loaded = prepare_network(onnx.load_from_string(buffer.getvalue()), name=f"U-Net {features}")
    return deploy(loaded, image_dtype="uint8", normalization=Normalization(scale=(255.0,)))


def naive(model: DeployedModel, image: np.ndarray, side: int) -> tuple[float, np.ndarray]:
    """Tiles without halo, each computed as if it were an image: seconds, labels."""
    height, width = image.shape[:2]
    engine = OnnxRuntimeEngine(
        model.graph,
        input_name=model.contract.image.name,
        output_name=model.contract.result.name,
        tile_shape=(side, side),
        activation_bytes=model.contract.memory.activation_bytes(side, side),
    )
    labels, out = np.empty((height, width), np.uint8), np.empty((side, side), np.uint8)
    begin = time.perf_counter()
    for y in range(0, height, side):
        for x in range(0, width, side):
            engine.infer(np.ascontiguousarray(image[y : y + side, x : x + side]), out)
            labels[y : y + side, x : x + side] = out
    seconds = time.perf_counter() - begin
    engine.close()
    return seconds, labels


def planned(model: DeployedModel, image: np.ndarray, plan: str, tile: tuple[int, int] | None):
    """A run of ours: seconds without opening the engine, labels, seconds of opening."""
    sink = ArraySink()
    summary = Session(model, memory_bytes=16 << 30).segment(ArraySource(image), sink, plan=plan, tile=tile)
    return summary.seconds.total - summary.seconds.open, sink.result, summary.seconds.open


def ways(model: DeployedModel, image: np.ndarray, strip_rows: list[int]) -> dict[str, Callable[[], tuple]]:
    height, width = image.shape[:2]
    found: dict[str, Callable[[], tuple]] = {"whole pass": lambda: planned(model, image, "whole", None)}
    for side in NAIVE:
        if side <= min(height, width):
            found[f"naive tiles {side}"] = lambda side=side: (*naive(model, image, side), 0.0)
    for side in EXACT_TILES:
        shape = (min(side, height), min(side, width))
        found[f"exact tiles {side}"] = lambda shape=shape: planned(model, image, "tile", shape)
    for rows in strip_rows:
        found[f"strips of {rows} rows"] = lambda rows=rows: planned(model, image, "strip", (rows, width))
    return found


def measure(features: int, size: tuple[int, int], rounds: int, strip_rows: list[int]) -> list[str]:
    model = network(features)
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    seconds: dict[str, list[float]] = {}
    opening: dict[str, float] = {}
    labels: dict[str, np.ndarray] = {}
    for _ in range(rounds):
        for name, way in ways(model, image, strip_rows).items():
            gc.collect()
            taken, labels[name], opening[name] = way()
            seconds.setdefault(name, []).append(taken)
            print(f"{features} features, {name}: {taken:.2f} s", file=sys.stderr)
    inexact = [name for name in seconds if name.startswith(("whole", "naive"))]
    floors = [min(seconds[name][index] for name in inexact) for index in range(rounds)]
    lines = []
    for name, taken in seconds.items():
        ratio = statistics.median(one / floor for one, floor in zip(taken, floors, strict=True))
        wrong = int((labels[name] != labels["whole pass"]).sum())
        lines.append(
            f"| {features} | {name} | {statistics.median(taken):.2f} | {ratio:.3f} | {opening[name]:.2f} | {wrong} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--features", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--size", default="2048x1024", help="height x width")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, nargs="+", default=[128, 256, 512])
    options = parser.parse_args()
    height, width = map(int, options.size.split("x"))
    lines = [line for n in options.features for line in measure(n, (height, width), options.rounds, options.rows)]
    print(describe_machine())
    arguments = f"--features {' '.join(map(str, options.features))} --size {options.size} --rounds {options.rounds}"
    print(f"\nCommand: `python benchmarks/strips.py {arguments} --rows {' '.join(map(str, options.rows))}`\n")
    print("| base features | plan | seconds | by the floor | opening s | labels that differ |")
    print("|---|---|---|---|---|---|")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
