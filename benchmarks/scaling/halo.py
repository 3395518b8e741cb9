"""Networks that look farther and farther: what exactness costs by tiles and by strips, from array to array."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from benchmarks.harness.record import Table
from benchmarks.harness.turns import floor_of, in_turn, median_ratio, ratios, spread
from benchmarks.networks import balanced, deployed, unet
from exactile import ArraySink, ArraySource, Session
from exactile.contract import DeployedModel
from exactile.engines.onnx_runtime import OnnxRuntimeEngine
from models.fc_densenet import LAYERS, FCDenseNet

NAIVE = (512, 1024)
COLUMNS = (
    "network", "halo: before, after", "way", "seconds|.2f", "by the floor|.2f", "rounds", "predicted passes|.2f",
    "computed / wanted|.2f", "opening s|.2f", "different labels|,d",
)  # fmt: skip
NOTE = (
    "In memory, engine opening not counted. The floor is the fastest of one whole pass and naive tiles of 512 and "
    "1024. *Predicted passes* is what the planner expects, by one whole pass."
)


def networks() -> dict[str, tuple[Callable[[], nn.Module], int]]:
    """Return what to build, and the exact tile: the paper's for FC-DenseNet."""
    found: dict[str, tuple[Callable[[], nn.Module], int]] = {
        f"U-Net, 16 features, depth {depth}": (lambda depth=depth: unet(16, depth), 1024) for depth in (1, 2, 3, 4)
    }
    return found | {"FC-DenseNet-56, growth 6": (densenet, 1152)}


def densenet() -> nn.Module:
    torch.manual_seed(0)
    return balanced(FCDenseNet(3, 3, layers=LAYERS[56], growth=6, features=24))


def naive(model: DeployedModel, image: np.ndarray, side: int) -> tuple[float, np.ndarray]:
    """Run tiles without halo, each computed as if it were an image; return seconds and labels."""
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


class Runs:
    """All ways for one network; what was last found of each."""

    def __init__(self, model: DeployedModel, image: np.ndarray, tile: int) -> None:
        self.model, self.image = model, image
        self.labels: dict[str, np.ndarray] = {}
        self.summaries: dict[str, object] = {}
        self.ways: dict[str, Callable[[], float]] = {
            "one whole pass": lambda: self._ours("one whole pass", "whole", None)
        }
        for side in NAIVE:
            if not (image.shape[0] % side or image.shape[1] % side):
                self.ways[f"naive tiles {side}"] = lambda side=side: self._naive(side)
        self.ways[f"exact tiles {tile}"] = lambda: self._ours(f"exact tiles {tile}", "tile", (tile, tile))
        self.ways["strips"] = lambda: self._ours("strips", "strip", None)

    def _naive(self, side: int) -> float:
        seconds, self.labels[f"naive tiles {side}"] = naive(self.model, self.image, side)
        return seconds

    def _ours(self, name: str, plan: str, tile: tuple[int, int] | None) -> float:
        sink = ArraySink()
        summary = Session(self.model, memory_bytes=16 << 30).segment(
            ArraySource(self.image), sink, plan=plan, tile=tile
        )  # fmt: skip
        self.labels[name], self.summaries[name] = np.asarray(sink.result), summary
        return summary.seconds.total - summary.seconds.open


def measure(shape: tuple[int, int], rounds: int, names: list[str] | None = None) -> Table:
    table = Table(title=f"Against the halo, {shape[0]} x {shape[1]}", columns=COLUMNS, note=NOTE)
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    for name, (build, tile) in networks().items():
        if names is None or name in names:
            add_network(table, name, deployed(build(), name), image, tile, rounds)
    return table


def add_network(table: Table, name: str, model: DeployedModel, image: np.ndarray, tile: int, rounds: int) -> None:
    runs = Runs(model, image, tile)
    seconds = in_turn(runs.ways, rounds, say=name)
    floor = floor_of(seconds, [way for way in seconds if way.startswith(("one", "naive"))])
    geometry = model.contract.geometry.y
    for way, taken in seconds.items():
        summary = runs.summaries.get(way)
        table.add(
            name,
            f"{geometry.halo_before}, {geometry.halo_after}",
            way,
            statistics.median(taken),
            median_ratio(taken, floor),
            spread(ratios(taken, floor)),
            summary and summary.predicted_passes,
            summary and summary.computed_pixels / summary.wanted_pixels,
            summary and summary.seconds.open,
            int(np.count_nonzero(runs.labels[way] != runs.labels["one whole pass"])),
        )
