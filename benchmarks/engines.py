"""What computes tiles and strips fastest on this CPU: ONNX Runtime, OpenVINO, torch. ``python -m benchmarks.engines``

The same graphs (uint8 tile in, labels out) at the same fixed shapes with 2 threads, in turn in one process: tiles of
1024 x 1024 and body strips of 128 x 1024 of U-Nets of depth 4. Torch computes the tile from the module that the graph
was exported from, in channels-last memory, with the division by 255 and the arg max; it has no strip graphs. OpenVINO
runs at float32, and at the precision that it chooses by itself, which on a CPU with bfloat16 is not float32.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.harness.machine import versions
from benchmarks.harness.part import run_part
from benchmarks.harness.record import Record, Table
from benchmarks.harness.turns import in_turn, median_ratio, ratios, spread
from benchmarks.networks import deployed, unet
from exactile.contract import DeployedModel
from exactile.engines.onnx_runtime import OnnxRuntimeEngine
from exactile.engines.strip_engine import StripEngine
from exactile.plan.strips import StripPlace, least_rows

TILE = (1024, 1024)
STRIP = (128, 1024)
COLUMNS = (
    "network", "work", "engine", "ms|.0f", "ONNX Runtime by it|.2f", "rounds", "open s|.2f", "different labels|,d",
)  # fmt: skip

Labels = np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """``run`` computes ``labels`` once."""

    run: Callable[[], None]
    labels: Callable[[], Labels]
    opening_s: float


def timed(make: Callable[[], tuple[Callable[[], None], Callable[[], Labels]]]) -> Way:
    begin = time.perf_counter()
    run, labels = make()
    return Way(run=run, labels=labels, opening_s=time.perf_counter() - begin)


def onnx_tile(model: DeployedModel, tile: np.ndarray, threads: int):
    contract, out = model.contract, np.empty(tile.shape[:2], np.uint8)
    engine = OnnxRuntimeEngine(
        model.graph,
        input_name=contract.image.name,
        output_name=contract.result.name,
        tile_shape=tile.shape[:2],
        threads=threads,
        activation_bytes=contract.memory.activation_bytes(*tile.shape[:2]),
    )
    return lambda: engine.infer(tile, out), lambda: out


def openvino_request(graph: bytes, shapes: dict[str, list[int]], threads: int, weights: dict, **config: str):
    """An inference request for ``graph`` at fixed shapes."""
    import openvino

    core = openvino.Core()
    network = core.read_model(io.BytesIO(with_weights(graph, weights)))
    network.reshape({name: openvino.PartialShape(shape) for name, shape in shapes.items()})
    options = {"INFERENCE_NUM_THREADS": str(threads), "NUM_STREAMS": "1", "PERFORMANCE_HINT": "LATENCY", **config}
    return core.compile_model(network, "CPU", options).create_infer_request()


def with_weights(graph: bytes, weights: dict[str, np.ndarray]) -> bytes:
    """``graph`` with the constants that it leaves outside."""
    import onnx

    if not weights:
        return graph
    model = onnx.load_from_string(graph)
    for tensor in model.graph.initializer:
        if tensor.name in weights:
            tensor.CopyFrom(onnx.numpy_helper.from_array(weights[tensor.name], tensor.name))
    return model.SerializeToString()


def openvino_tile(model: DeployedModel, tile: np.ndarray, threads: int, **config: str):
    contract = model.contract
    request = openvino_request(
        model.graph, {contract.image.name: list(tile.shape)}, threads, dict(model.weights), **config
    )
    request.set_input_tensor(_tensor(tile))

    def run() -> None:
        request.infer()

    return run, lambda: request.get_tensor(contract.result.name).data


def torch_tile(module: nn.Module, tile: np.ndarray, threads: int):
    torch.set_num_threads(threads)
    module = module.to(memory_format=torch.channels_last)
    found: list[Labels] = []

    def run() -> None:
        with torch.inference_mode():
            scores = module(torch.from_numpy(tile).permute(2, 0, 1)[None].float() / 255)
            found[:] = [scores.argmax(1)[0].to(torch.uint8).numpy()]

    return run, lambda: found[0]


def onnx_strip(model: DeployedModel, strip: np.ndarray, threads: int):
    """Body strips, whose carries go round; the first strip comes before them, untimed."""
    strips, contract = model.strips, model.contract
    engine = StripEngine(
        strips, contract, band_width=strip.shape[1], bands=1, threads=threads,
        activation_bytes=contract.memory.activation_bytes(least_rows(strips), strip.shape[1]),
    )  # fmt: skip
    first = np.zeros((least_rows(strips), *strip.shape[1:]), strip.dtype)
    engine.infer(first, np.empty((first.shape[0] - strips.lag, first.shape[1]), np.uint8), StripPlace("first", 0))
    out = np.empty(strip.shape[:2], np.uint8)
    return lambda: engine.infer(strip, out, StripPlace("body", 0)), lambda: out


def openvino_strip(model: DeployedModel, strip: np.ndarray, threads: int, **config: str):
    """Two sets of carries take turns, as in the engine for ONNX Runtime; nothing is copied."""
    strips, contract, width = model.strips, model.contract, strip.shape[1]
    shapes = {contract.image.name: list(strip.shape)}
    shapes |= {f"{carry.name}_in": list(carry.shape_at(width)) for carry in strips.carries}
    request = openvino_request(strips.graphs["body"].graph, shapes, threads, dict(strips.weights), **config)
    sets = [{c.name: _tensor(np.zeros(c.shape_at(width), c.dtype)) for c in strips.carries} for _ in range(2)]
    request.set_tensor(contract.image.name, _tensor(strip))

    def run() -> None:
        for name in sets[0]:
            request.set_tensor(f"{name}_in", sets[0][name])
            request.set_tensor(f"{name}_out", sets[1][name])
        request.infer()
        sets.reverse()

    return run, lambda: request.get_tensor(contract.result.name).data


def _tensor(array: np.ndarray) -> Any:
    import openvino

    return openvino.Tensor(array, shared_memory=True)


def ways(model: DeployedModel, module: nn.Module, work: str, threads: int) -> dict[str, Way]:
    random = np.random.default_rng(0)
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    if work == "tile":
        tile = random.integers(0, 256, (*TILE, 3), dtype=np.uint8)
        return {
            "ONNX Runtime": timed(lambda: onnx_tile(model, tile, threads)),
            "OpenVINO": timed(lambda: openvino_tile(model, tile, threads, **exact)),
            "OpenVINO, its own precision": timed(lambda: openvino_tile(model, tile, threads)),
            "torch": timed(lambda: torch_tile(module, tile, threads)),
        }
    strip = random.integers(0, 256, (*STRIP, 3), dtype=np.uint8)
    return {
        "ONNX Runtime": timed(lambda: onnx_strip(model, strip, threads)),
        "OpenVINO": timed(lambda: openvino_strip(model, strip, threads, **exact)),
        "OpenVINO, its own precision": timed(lambda: openvino_strip(model, strip, threads)),
    }


def measure(options: argparse.Namespace) -> Iterator[Record]:
    rounds = options.rounds or (3 if options.quick else 5)
    table = Table(title=f"Engines, {options.threads} threads", columns=COLUMNS)
    for features in options.features or ([16] if options.quick else [16, 32, 64]):
        module = unet(features)
        model = deployed(unet(features), f"U-Net {features}")
        for work in ("tile", "strip"):
            name = f"{'x'.join(map(str, TILE))} tile" if work == "tile" else f"{STRIP[0]}x{STRIP[1]} body strip"
            found = ways(model, module, work, options.threads)
            add_rows(table, f"U-Net, {features} features", name, found, min(rounds, 3) if features > 32 else rounds)
    described = ", ".join(f"{name} {number}" for name, number in versions(("onnxruntime", "openvino", "torch")).items())
    yield Record(
        part="engines",
        title="Engines on a CPU",
        tables=[table],
        remarks=f"{__doc__.split(chr(10) * 2, 1)[1].strip()}\n\n{described}",
    )


def add_rows(table: Table, network: str, work: str, found: dict[str, Way], rounds: int) -> None:
    seconds = in_turn({name: way.run for name, way in found.items()}, rounds, warm_up=1, say=f"{network}, {work}")
    reference = found["ONNX Runtime"].labels()
    for name, way in found.items():
        table.add(
            network,
            work,
            name,
            statistics.median(seconds[name]) * 1000,
            median_ratio(seconds["ONNX Runtime"], seconds[name]),
            spread(ratios(seconds["ONNX Runtime"], seconds[name])),
            way.opening_s,
            int(np.count_nonzero(way.labels() != reference)),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=int, nargs="+")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--threads", type=int, default=2)
    run_part(measure, parser)


if __name__ == "__main__":
    main()
