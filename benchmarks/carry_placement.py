"""Whether the predicted cost of carried rows is the measured one: a body strip against the same rows of a whole pass.

``python -m benchmarks.carry_placement [--quick] [--rows 128] [--width 512]`` runs, in ONNX Runtime with 2 threads and
fixed dimensions, one pass over four strips' height and body strips that carry every map that may be carried, none
but the image, and those that ``place`` chooses. They take turns in one process; figures are medians over rounds of
the strip's time by a quarter of the pass's time in the same round. Beside them stands what ``StripCosts`` predicts.

A second table has the time of each operator, from ONNX Runtime's profiler, for the chosen maps. Its last columns
calibrate ``MAC_PER_BYTE``: multiply-accumulates a second in convolutions by bytes a second in copies.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from torch import nn

from benchmarks.harness.part import run_part
from benchmarks.harness.record import Record, Table
from benchmarks.harness.turns import in_turn, median_ratio, ratios, spread
from benchmarks.networks import exported
from exactile_converters.graphs.computing import MAC_PER_BYTE
from exactile_converters.prepare.from_onnx import prepare_network
from exactile_converters.strips.candidates import candidates
from exactile_converters.strips.cost import StripCosts
from exactile_converters.strips.demand import demand
from exactile_converters.strips.graphs import carries, strip_graph
from exactile_converters.strips.placement import place
from exactile_converters.strips.source import StripSource
from models.fc_densenet import LAYERS, FCDenseNet
from models.resnet_unet import ResNetUNet
from models.unet import UNet

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "U-Net, 16 features": lambda: UNet(3, 3, features=16, depth=4),
    "U-Net, 64 features": lambda: UNet(3, 3, features=64, depth=4),
    "FC-DenseNet-56": lambda: FCDenseNet(3, 3, layers=LAYERS[56]),
    "ResNet U-Net": lambda: ResNetUNet(3, 3),
}
STRIPS_IN_PASS = 4
COPIES = {"Concat", "Slice", "ReorderInput", "ReorderOutput"}
PROFILED_RUNS = 6
OPERATORS = (
    "Conv|.1f", "ConvTranspose|.1f", "Concat|.1f", "Slice|.1f", "ReorderInput|.1f", "ReorderOutput|.1f", "others|.1f",
)  # fmt: skip
PLACEMENT = (
    "network", "carried", "maps", "predicted|.3f", "measured, median|.3f", "all rounds", "ms|.0f", "placed in s|.2f",
)  # fmt: skip

Run = Callable[[], object]
Event = dict[str, Any]


def export(build: Callable[[], nn.Module]) -> bytes:
    torch.manual_seed(0)
    return exported(build())


def source_of(model: bytes) -> StripSource:
    network = prepare_network(onnx.load_from_string(model), name="network")
    traced = network.trace()
    return StripSource.of(
        model=network.model,
        walk=traced.walk,
        nodes=traced.nodes,
        sizes=traced.sizes,
        remainder=traced.geometry.y.remainder,
        image=network.image,
        result=network.result,
    )


def body(source: StripSource, carry: Iterable[str], rows: int, width: int) -> tuple[bytes, dict[str, int]]:
    """Return the graph, and the sizes of its free dimensions."""
    chosen = frozenset(carry)
    carried = carries(source, demand(source.frontiers, chosen))
    sizes = {"height": rows, "width": width} | {carry.width_name: carry.columns_at(width) for carry in carried}
    return strip_graph(source, chosen, "body").SerializeToString(), sizes


def open_session(model: bytes, sizes: dict[str, int], profile: Path | None = None) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 2
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    for name, size in sizes.items():
        options.add_free_dimension_override_by_name(name, size)
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile / "profile")
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def runner(session: ort.InferenceSession) -> Run:
    generator = np.random.default_rng(0)
    feeds = {value.name: generator.random(value.shape, dtype=np.float32) for value in session.get_inputs()}
    return lambda: session.run(None, feeds)


def profiled(model: bytes, sizes: dict[str, int]) -> list[Event]:
    """Return the kernels of one run with the median of their microseconds: ``args`` and ``dur``."""
    with tempfile.TemporaryDirectory() as directory:
        session = open_session(model, sizes, Path(directory))
        run = runner(session)
        for _ in range(PROFILED_RUNS):
            run()
        events = json.loads(Path(session.end_profiling()).read_text())
    kernels = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            kernels[event["name"]].append(event)
    return [
        found[0] | {"dur": statistics.median(event["dur"] for event in found[1:])}
        for found in kernels.values()
        if len(found) == PROFILED_RUNS
    ]


def shapes(entries: list[dict[str, list[int]]]) -> list[list[int]]:
    return [entry["float"] for entry in entries if "float" in entry]


def mac_per_byte(kernels: list[Event]) -> float:
    """Return multiply-accumulates of convolutions in the time that copies take for a byte."""
    macs = copied = mac_us = copy_us = 0.0
    for kernel in kernels:
        taken, given = (shapes(kernel["args"][f"{side}_type_shape"]) for side in ("input", "output"))
        if kernel["args"]["op_name"] == "Conv":
            macs += prod(taken[1]) * prod(given[0][2:])
            mac_us += kernel["dur"]
        elif kernel["args"]["op_name"] in COPIES and given:
            copied += 2 * 4 * sum(map(prod, given))
            copy_us += kernel["dur"]
    return (macs / mac_us) / (copied / copy_us)


def add_operators(table: Table, name: str, graph: str, kernels: list[Event], strips: int) -> None:
    times: Counter[str] = Counter()
    for kernel in kernels:
        op = kernel["args"]["op_name"]
        times[op if op in {"Conv", "ConvTranspose"} | COPIES else "others"] += kernel["dur"] / 1000 / strips
    cells = [times[column.partition("|")[0]] for column in OPERATORS]
    table.add(name, graph, *cells, sum(times.values()), mac_per_byte(kernels))


def add_network(name: str, tables: tuple[Table, Table], rows: int, width: int, rounds: int) -> None:
    model = export(NETWORKS[name])
    source = source_of(model)
    begin = time.perf_counter()
    chosen = place(source, strip_rows=rows)
    placed_s = time.perf_counter() - begin
    every = candidates(source.frontiers)
    choices = {"every": every, "none": [], "chosen": sorted(chosen)}
    graphs = {choice: body(source, carry, rows, width) for choice, carry in choices.items()}
    graphs["pass"] = model, {"batch": 1, "height": STRIPS_IN_PASS * rows, "width": width}
    runs = {key: runner(open_session(*graph)) for key, graph in graphs.items()}
    seconds = in_turn(runs, rounds, warm_up=1, say=name)
    costs, quarter = StripCosts(source), [taken / STRIPS_IN_PASS for taken in seconds["pass"]]
    for choice, carry in choices.items():
        tables[0].add(
            name,
            choice,
            f"{len(carry)} of {len(every)}",
            costs.strip(frozenset(carry), rows) / costs.whole(rows),
            median_ratio(seconds[choice], quarter),
            spread(ratios(seconds[choice], quarter)),
            statistics.median(seconds[choice]) * 1000,
            placed_s if choice == "chosen" else None,
        )
    add_operators(tables[1], name, "a strip of a pass", profiled(*graphs["pass"]), STRIPS_IN_PASS)
    add_operators(tables[1], name, "chosen", profiled(*graphs["chosen"]), 1)


def measure(options: argparse.Namespace) -> Iterator[Record]:
    rounds = options.rounds or (3 if options.quick else 9)
    tables = (
        Table(title="Where rows are carried: predicted and measured", columns=PLACEMENT),
        Table(
            title="Milliseconds by operator, and the multiply-accumulates that a copied byte takes as long as",
            columns=("network", "graph", *OPERATORS, "sum|.1f", "MAC per byte|.1f"),
        ),
    )
    for name in options.networks or (list(NETWORKS)[:1] if options.quick else list(NETWORKS)):
        add_network(name, tables, options.rows, options.width, rounds)
    remarks = (
        f"Strips of {options.rows} x {options.width} pixels, 2 threads, {rounds} rounds in turn. Predicted with "
        f"MAC_PER_BYTE = {MAC_PER_BYTE}. Times are by those of the same rows of a whole pass."
    )
    yield Record(
        part="carry_placement",
        title="Carry placement",
        tables=list(tables),
        remarks=remarks,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS)
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--rounds", type=int)
    run_part(measure, parser)


if __name__ == "__main__":
    main()
