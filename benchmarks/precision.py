"""What fewer bits bring on this CPU: time, labels that change and weights, for the trained U-Net and a larger one.

``python -m benchmarks.precision [--quick]``: one pass over 1024 x 1024 pixels in FP32, FP16 and INT8 (calibrated by
percentiles), in turn in one process; ratios are medians over rounds of the time by FP32's in the same round.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from skimage import data

from benchmarks.harness.part import run_part
from benchmarks.harness.record import Record, Table
from benchmarks.harness.turns import in_turn, median_ratio
from benchmarks.networks import prepared, unet
from exactile.contract import DeployedModel
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource
from exactile_converters.deploy import Normalization, deploy
from exactile_converters.from_onnx import Network, load_network
from exactile_converters.precision import PRECISIONS, at_precision, compare_labels, crops_of
from exactile_converters.simplify import simplify

NORMALIZATION = Normalization(scale=(255.0,), mean=(0.5,), std=(0.25,))
SIDE = 1024
COLUMNS = (
    "network", "precision", "seconds|.2f", "by FP32|.2f", "labels that differ|.3%", "IoU by class", "graph KiB|.0f",
)  # fmt: skip


def large() -> Network:
    return prepared(unet(32), "U-Net, 32 features, random weights")


def add_network(table: Table, network: Network, image: np.ndarray, rounds: int) -> None:
    simplify(network)
    crops = crops_of([ArraySource(image)], network, NORMALIZATION)
    networks = {precision: at_precision(network, precision, crops, "percentile") for precision in PRECISIONS}
    models = {
        precision: deploy(found, image_dtype="uint8", normalization=NORMALIZATION, strips=False)
        for precision, found in networks.items()
    }
    ways = {precision: partial(inference_s, model, image) for precision, model in models.items()}
    seconds = in_turn(ways, rounds, warm_up=1, say=network.name)
    for precision, model in models.items():
        found = compare_labels(models["fp32"], model, crops)
        iou = ", ".join("-" if value is None else f"{value:.4f}" for value in found.iou)
        table.add(
            network.name,
            precision,
            statistics.median(seconds[precision]),
            median_ratio(seconds[precision], seconds["fp32"]),
            found.different_labels / found.pixels,
            iou,
            len(model.graph) / 1024,
        )


def inference_s(model: DeployedModel, image: np.ndarray) -> float:
    return Session(model).segment(ArraySource(image), ArraySink(), plan="whole").seconds.infer


def measure(options: argparse.Namespace) -> Iterator[Record]:
    tissue = np.tile(data.immunohistochemistry(), (SIDE // 512, SIDE // 512, 1))[:SIDE, :SIDE].copy()
    table = Table(title=f"{SIDE} x {SIDE} pixels, one pass", columns=COLUMNS)
    rounds = options.rounds or (2 if options.quick else 5)
    trained = load_network(Path(__file__).parent.parent / "models" / "stain_unet.onnx")
    for network in [trained] if options.quick else [trained, large()]:
        add_network(table, network, tissue, rounds)
    yield Record(
        part="precision",
        title="Fewer bits on this CPU",
        tables=[table],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int)
    run_part(measure, parser)


if __name__ == "__main__":
    main()
