"""Where a strip's time goes beyond that of the same rows of one pass, and of naive tiles: time of each operator.

``python -m benchmarks.strip_floor [--quick] [--rows 128] [--width 1024]`` profiles, in ONNX Runtime with fixed
dimensions, the body strip of deployed networks (uint8 in, labels out), one pass over four strips' height, and a tile of
512 x 512. Milliseconds are for as many pixels as a strip has: medians over runs for each operator. "between" is what a
run takes beyond its operators: handing work to threads, allocating, and the profiler itself. The graphs run in blocks,
one after the other; ratios compare sums of one block, and repeat in ``blocks``.

With one thread, the difference of two sums is work. With two, what one thread does alone (joining, cutting, changes of
layout) counts twice as much by the rest.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from torch import nn

from benchmarks.harness.part import run_part
from benchmarks.harness.record import Record, Table
from benchmarks.harness.turns import spread
from benchmarks.networks import CHANNELS, CLASSES, balanced, deployed, unet
from exactile.contract import DeployedModel
from exactile.engines.onnx_runtime import add_weights, session_options
from models.fc_densenet import LAYERS, FCDenseNet

COPIES = ("Concat", "Slice", "ReorderInput", "ReorderOutput")
NAMED = ("Conv", "ConvTranspose", *COPIES)
STRIPS_IN_PASS, TILE_PX, RUNS = 4, 512, 3
SAMPLES: dict[str, type[np.generic]] = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8}

Times = dict[str, float]
"""Milliseconds by operator; "between" and "run" beside them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A graph at fixed sizes, and weights outside it; ``strips`` is how many strips have as many pixels."""

    graph: bytes
    weights: Mapping[str, Any]
    sizes: dict[str, int]
    strips: float
    by_priority: bool = False


def fc_densenet() -> nn.Module:
    torch.manual_seed(0)
    return balanced(FCDenseNet(CHANNELS, CLASSES, layers=LAYERS[56], growth=6, features=24))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "U-Net, 16 features": lambda: unet(16),
    "FC-DenseNet-56, growth 6": fc_densenet,
}


def works(model: DeployedModel, rows: int, width: int) -> dict[str, Work]:
    assert model.strips is not None
    carried = {carry.width_name: carry.columns_at(width) for carry in model.strips.carries}
    return {
        "a strip of one pass": Work(
            graph=model.graph,
            weights=model.weights,
            sizes={"height": STRIPS_IN_PASS * rows, "width": width},
            strips=STRIPS_IN_PASS,
        ),
        "naive tiles 512": Work(
            graph=model.graph,
            weights=model.weights,
            sizes={"height": TILE_PX, "width": TILE_PX},
            strips=TILE_PX**2 / (rows * width),
        ),
        "body strip": Work(
            graph=model.strips.graphs["body"].graph,
            weights=model.strips.weights,
            sizes={"height": rows, "width": width} | carried,
            strips=1,
            by_priority=True,
        ),
    }


def profiled(work: Work, threads: int) -> Times:
    with tempfile.TemporaryDirectory() as directory:
        session = open_session(work, threads, Path(directory))
        binding = session.io_binding()
        random = np.random.default_rng(0)
        for value in session.get_inputs():
            samples = (random.random(value.shape, dtype=np.float32) * 200).astype(SAMPLES[value.type])
            binding.bind_cpu_input(value.name, samples)
        for value in session.get_outputs():
            binding.bind_output(value.name)
        for _ in range(RUNS + 1):
            session.run_with_iobinding(binding)
        events = json.loads(Path(session.end_profiling()).read_text())
    return {name: ms / work.strips for name, ms in by_operator(events).items()}


def open_session(work: Work, threads: int, folder: Path) -> ort.InferenceSession:
    """Open it as exactile does, with the profiler on and its own arena."""
    carried = dict(work.sizes)
    options = session_options(ort, (carried.pop("height"), carried.pop("width")), threads)
    if work.by_priority:
        options.execution_order = ort.ExecutionOrder.PRIORITY_BASED
    for name, size in carried.items():
        options.add_free_dimension_override_by_name(name, size)
    add_weights(ort, options, work.weights, work.graph)
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    return ort.InferenceSession(work.graph, options, providers=["CPUExecutionProvider"])


def by_operator(events: list[dict[str, Any]]) -> Times:
    """Return medians over runs except the first, which touches memory for the first time."""
    kernels: dict[tuple[str, str], list[float]] = defaultdict(list)
    runs = []
    for event in events:
        if event["name"] == "model_run":
            runs.append(event["dur"] / 1000)
        elif event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            kernels[event["name"], event["args"]["op_name"]].append(event["dur"] / 1000)
    found: Times = dict.fromkeys((*NAMED, "others"), 0.0)
    for (_name, op), times in kernels.items():
        found[op if op in NAMED else "others"] += statistics.median(times[1:])
    run = statistics.median(runs[1:])
    return found | {"between": run - sum(found.values()), "run": run}


def measure(options: argparse.Namespace) -> Iterator[Record]:
    columns = tuple(f"{name}|.1f" for name in (*NAMED, "others", "between", "run"))
    table = Table(
        title="Milliseconds for the pixels of a strip, by operator",
        columns=("network", "threads", "graph", *columns, "run by one pass|.3f", "blocks"),
    )
    blocks = options.blocks or (1 if options.quick else 3)
    for network in options.networks or list(NETWORKS)[: 1 if options.quick else None]:
        model = deployed(NETWORKS[network](), network)
        for threads in (1, 2):
            add_rows(table, network, threads, works(model, options.rows, options.width), blocks)
    yield Record(
        part="strip_floor",
        title="What strips cost beyond one pass",
        tables=[table],
        remarks=f"{__doc__}\n\nStrips of {options.rows} x {options.width} pixels.",
    )


def add_rows(table: Table, network: str, threads: int, graphs: dict[str, Work], blocks: int) -> None:
    found = [{name: profiled(work, threads) for name, work in graphs.items()} for _ in range(blocks)]
    for name in graphs:
        by_pass = [block[name]["run"] / block["a strip of one pass"]["run"] for block in found]
        times = [statistics.median(block[name][op] for block in found) for op in found[0][name]]
        table.add(network, threads, name, *times, statistics.median(by_pass), spread(by_pass))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS)
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--blocks", type=int)
    run_part(measure, parser)


if __name__ == "__main__":
    main()
