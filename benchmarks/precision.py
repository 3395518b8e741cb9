"""Measure the effect of fewer bits on this CPU: time, labels that change and weights, for the trained U-Net and a
larger one.

``python -m benchmarks.precision [--quick]``: one pass over 1024 x 1024 pixels and strips of 128 rows in FP32, FP16 and
INT8 (the best form of those that ``exactile convert --precision int8`` compares, on half the image), in turn in one
process; ratios are medians over rounds of the time relative to FP32's one pass in the same round.
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
from exactile_converters.cleanup.simplify import simplify
from exactile_converters.deploy import Normalization, deploy
from exactile_converters.networks.network import Network
from exactile_converters.prepare.from_onnx import load_network
from exactile_converters.reduced_precision.calibration import Accuracy, Chosen, Reference, choose
from exactile_converters.reduced_precision.calibration_crops import crops_of
from exactile_converters.reduced_precision.precision import in_half_precision

NORMALIZATION = Normalization(scale=(255.0,), mean=(0.5,), std=(0.25,))
SIDE, STRIP_ROWS = 1024, 128
COLUMNS = (
    "network", "precision", "one pass, s|.2f", "by FP32|.2f", "strips by FP32's one pass|.2f", "labels that differ|.3%",
    "IoU by class", "graph KiB|.0f",
)  # fmt: skip
FORM_COLUMNS = (
    "network", "ranges", "layers in FP32", "labels that differ|.3%", "IoU by class", "one pass by FP32|.2f",
)  # fmt: skip


def large() -> Network:
    return prepared(unet(32), "U-Net, 32 features, random weights")


def add_network(table: Table, forms: Table, network: Network, tissue: np.ndarray, rounds: int) -> None:
    simplify(network)
    crops = crops_of([ArraySource(tissue)], network, NORMALIZATION)
    chosen = choose(network, NORMALIZATION, crops)
    half = in_half_precision(network)
    found = {"fp32": None, "fp16": Reference(network, NORMALIZATION, crops.held_out).compare(half)[0]}
    found["int8"] = chosen.trial.accuracy
    add_forms(forms, network.name, chosen)
    networks = {"fp32": network, "fp16": half, "int8": chosen.network}
    models = {
        precision: deploy(one, image_dtype="uint8", normalization=NORMALIZATION) for precision, one in networks.items()
    }
    image = np.tile(tissue, (SIDE // 512, SIDE // 512, 1))
    ways = {precision: partial(inference_s, model, image, "whole") for precision, model in models.items()}
    ways |= {f"{precision} strips": partial(inference_s, model, image, "strip") for precision, model in models.items()}
    seconds = in_turn(ways, rounds, warm_up=1, say=network.name)
    for precision, model in models.items():
        accuracy = found[precision]
        table.add(
            network.name,
            precision,
            statistics.median(seconds[precision]),
            median_ratio(seconds[precision], seconds["fp32"]),
            median_ratio(seconds[f"{precision} strips"], seconds["fp32"]),
            accuracy.share if accuracy is not None else 0.0,
            iou(accuracy),
            len(model.graph) / 1024,
        )


def add_forms(table: Table, name: str, chosen: Chosen) -> None:
    for trial in chosen.tried:
        layers = trial.float_layers + (" (taken)" if trial == chosen.trial else "")
        table.add(name, str(trial.method), layers, trial.error, iou(trial.accuracy), trial.time)


def iou(accuracy: Accuracy | None) -> str:
    return ", ".join("-" if value is None else f"{value:.4f}" for value in accuracy.iou) if accuracy is not None else ""


def inference_s(model: DeployedModel, image: np.ndarray, plan: str) -> float:
    tile = (STRIP_ROWS, SIDE) if plan == "strip" else None
    return Session(model).segment(ArraySource(image), ArraySink(), plan=plan, tile=tile).seconds.infer


def measure(options: argparse.Namespace) -> Iterator[Record]:
    table = Table(title=f"{SIDE} x {SIDE} pixels", columns=COLUMNS)
    forms = Table(title="Forms of int8, on the half of the image that none was calibrated on", columns=FORM_COLUMNS)
    rounds = options.rounds or (2 if options.quick else 3)
    trained = load_network(Path(__file__).parent.parent / "models" / "stain_unet.onnx")
    for network in [trained] if options.quick else [trained, large()]:
        add_network(table, forms, network, data.immunohistochemistry(), rounds)
    yield Record(
        part="precision",
        title="Fewer bits on this CPU",
        tables=[table, forms],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int)
    run_part(measure, parser)


if __name__ == "__main__":
    main()
