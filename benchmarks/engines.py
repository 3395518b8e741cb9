"""Compare engines for tiles and strips on this CPU: ONNX Runtime, OpenVINO, torch. ``python -m benchmarks.engines``

The same graphs (uint8 tile in, labels out) at the same fixed shapes with 2 threads, in turn in one process: tiles of
512 x 512 and, of the smallest network, 1024 x 1024, and body strips of 128 x 1024. Torch computes that network's tile
of 512 from the module that the graph was exported from, in channels-last memory, with the division by 255 and the arg
max; it has no strip graphs. OpenVINO runs at float32 and, on a CPU that has bfloat16, at the precision that it chooses
by itself. INT8 is calibrated on an image of random samples (min-max). Labels are compared with those of ONNX Runtime at
the same precision.
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
from benchmarks.networks import CHANNELS, CLASSES, SCALE, balanced, deployed, prepared, unet
from exactile.contract import DeployedModel
from exactile.engines.onnx_runtime import OnnxRuntimeEngine
from exactile.engines.strip_engine import StripEngine
from exactile.plan.strips import StripPlace, least_rows
from exactile.sources.array import ArraySource
from exactile_converters.deploy import deploy
from exactile_converters.reduced_precision.calibration_crops import crops_of
from exactile_converters.reduced_precision.precision import at_precision
from models.fc_densenet import LAYERS, FCDenseNet

SMALL_TILE, LARGE_TILE, STRIP = (512, 512), (1024, 1024), (128, 1024)
FLOAT32 = {"INFERENCE_PRECISION_HINT": "f32"}
COLUMNS = (
    "network", "work", "engine", "ms|.0f", "ONNX Runtime by it|.2f", "rounds", "open s|.2f", "different labels|,d",
)  # fmt: skip

Labels = np.ndarray


def fc_densenet() -> nn.Module:
    torch.manual_seed(0)
    return balanced(FCDenseNet(CHANNELS, CLASSES, layers=LAYERS[56]))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "U-Net, 16 features": lambda: unet(16),
    "U-Net, 64 features": lambda: unet(64),
    "FC-DenseNet-56": fc_densenet,
    "U-Net, 16 features, INT8": lambda: unet(16),
}
LARGE = {"U-Net, 64 features", "FC-DenseNet-56"}
"""Networks whose tiles of 1024 x 1024, and torch's of 512, take longer than a table should."""


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
    """Return an inference request for ``graph`` at fixed shapes."""
    import openvino

    core = openvino.Core()
    network = core.read_model(io.BytesIO(with_weights(graph, weights)))
    network.reshape({name: openvino.PartialShape(shape) for name, shape in shapes.items()})
    options = {"INFERENCE_NUM_THREADS": str(threads), "NUM_STREAMS": "1", "PERFORMANCE_HINT": "LATENCY", **config}
    return core.compile_model(network, "CPU", options).create_infer_request()


def with_weights(graph: bytes, weights: dict[str, np.ndarray]) -> bytes:
    """Return ``graph`` with the constants that it keeps outside."""
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
    """Return body strips whose carries circulate; the first strip comes before them, untimed."""
    strips, contract = model.strips, model.contract
    engine = StripEngine(
        strips, contract, band_width=strip.shape[1], bands=range(1), threads=threads,
        activation_bytes=contract.memory.activation_bytes(least_rows(strips), strip.shape[1]),
    )  # fmt: skip
    first = np.zeros((least_rows(strips), *strip.shape[1:]), strip.dtype)
    engine.infer(first, np.empty((first.shape[0] - strips.lag, first.shape[1]), np.uint8), StripPlace("first", 0))
    out = np.empty(strip.shape[:2], np.uint8)
    return lambda: engine.infer(strip, out, StripPlace("body", 0)), lambda: out


def openvino_strip(model: DeployedModel, strip: np.ndarray, threads: int, **config: str):
    """Return body strips with two sets of carries used alternately, as in the engine for ONNX Runtime; nothing is
    copied.
    """
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


def has_bfloat16() -> bool:
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def in_int8(module: nn.Module, name: str) -> DeployedModel:
    samples = np.random.default_rng(1).integers(0, 256, (512, 512, CHANNELS), dtype=np.uint8)
    network = prepared(module, name)
    crops = crops_of([ArraySource(samples)], network, SCALE).calibration
    return deploy(at_precision(network, "int8", crops, "minmax"), image_dtype="uint8", normalization=SCALE)


def tile_ways(model: DeployedModel, module: nn.Module | None, side: tuple[int, int], threads: int) -> dict[str, Way]:
    """Return the ways to compute a tile; without torch if there is no ``module``."""
    tile = samples_of(side)
    found = both_ways(onnx_tile, openvino_tile, model, tile, threads)
    if module is not None:
        found["torch"] = timed(lambda: torch_tile(module, tile, threads))
    return found


def strip_ways(model: DeployedModel, threads: int) -> dict[str, Way]:
    return both_ways(onnx_strip, openvino_strip, model, samples_of(STRIP), threads)


def both_ways(
    onnx: Callable[..., Any], openvino: Callable[..., Any], model: DeployedModel, samples: np.ndarray, threads: int
) -> dict[str, Way]:
    found = {
        "ONNX Runtime": timed(lambda: onnx(model, samples, threads)),
        "OpenVINO": timed(lambda: openvino(model, samples, threads, **FLOAT32)),
    }
    if has_bfloat16():
        found["OpenVINO, its own precision"] = timed(lambda: openvino(model, samples, threads))
    return found


def samples_of(shape: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*shape, CHANNELS), dtype=np.uint8)


def works(network: str, threads: int) -> Iterator[tuple[str, dict[str, Way]]]:
    """Yield the ways of a network; strips in INT8 are ``QLinearConv`` of ONNX Runtime, which OpenVINO does not read."""
    module = NETWORKS[network]()
    if network.endswith("INT8"):
        model = in_int8(module, network)
        yield "512x512 tile", tile_ways(model, None, SMALL_TILE, threads)
        yield "1024x1024 tile", tile_ways(model, None, LARGE_TILE, threads)
        return
    model = deployed(NETWORKS[network](), network)
    yield "512x512 tile", tile_ways(model, None if network in LARGE else module, SMALL_TILE, threads)
    if network not in LARGE:
        yield "1024x1024 tile", tile_ways(model, None, LARGE_TILE, threads)
    yield "128x1024 body strip", strip_ways(model, threads)


def measure(options: argparse.Namespace) -> Iterator[Record]:
    rounds = options.rounds or (3 if options.quick else 5)
    table = Table(title=f"Engines, {options.threads} threads", columns=COLUMNS)
    for network in options.networks or list(NETWORKS)[: 1 if options.quick else None]:
        for work, ways in works(network, options.threads):
            add_rows(table, network, work, ways, min(rounds, 3) if network in LARGE else rounds)
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
    parser.add_argument("--networks", nargs="+", choices=NETWORKS)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--threads", type=int, default=2)
    run_part(measure, parser)


if __name__ == "__main__":
    main()
