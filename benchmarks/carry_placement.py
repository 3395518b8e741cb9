"""Whether the predicted cost of carried rows is the measured one: a body strip against the same rows of a whole pass.

``python benchmarks/carry_placement.py [--rows 128] [--width 512] [--rounds 9]`` runs, in ONNX Runtime with 2 threads
and fixed dimensions, one pass over four strips' height and body strips that carry every map that may be carried, none
but the image, and those that ``place`` chooses. They take turns in one process; figures are medians over rounds of
the strip's time by a quarter of the pass's time in the same round. Beside them stands what ``StripCosts`` predicts.

A second table has the time of each operator, from ONNX Runtime's profiler, for the chosen maps. Its last columns
calibrate ``MAC_PER_BYTE``: multiply-accumulates a second in convolutions by bytes a second in copies.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.machine import describe_machine
from exactile_converters.from_onnx import prepare_network
from exactile_converters.strips.candidates import candidates
from exactile_converters.strips.cost import MAC_PER_BYTE, StripCosts
from exactile_converters.strips.demand import demand
from exactile_converters.strips.graphs import carries, strip_graph
from exactile_converters.strips.placement import place
from exactile_converters.strips.source import StripSource
from exactile_converters.torch_export import export_onnx
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

Run = Callable[[], object]
Event = dict[str, Any]


def export(build: Callable[[], nn.Module]) -> bytes:
    torch.manual_seed(0)
    buffer = io.BytesIO()
    export_onnx(build(), buffer, 3)
    return buffer.getvalue()


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
    """The graph, and the sizes of its free dimensions."""
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


def seconds_in_turn(runs: dict[str, Run], rounds: int) -> dict[str, list[float]]:
    seconds = defaultdict(list)
    for turn in range(rounds + 1):
        for name, run in runs.items():
            begin = time.perf_counter()
            run()
            if turn:  # the first round warms up
                seconds[name].append(time.perf_counter() - begin)
    return seconds


def profiled(model: bytes, sizes: dict[str, int]) -> list[Event]:
    """The kernels of one run with the median of their microseconds: ``args`` and ``dur``."""
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
    """Multiply-accumulates of convolutions in the time that copies take for a byte."""
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


def operators(name: str, graph: str, kernels: list[Event], strips: int) -> str:
    times: Counter[str] = Counter()
    for kernel in kernels:
        op = kernel["args"]["op_name"]
        times[op if op in COPIES | {"Conv", "ConvTranspose"} else "others"] += kernel["dur"] / 1000 / strips
    columns = ["Conv", "ConvTranspose", "Concat", "Slice", "ReorderInput", "ReorderOutput", "others"]
    cells = [f"{times[op]:.1f}" for op in columns]
    return f"| {name} | {graph} | {' | '.join(cells)} | {sum(times.values()):.1f} | {mac_per_byte(kernels):.1f} |"


def measure(name: str, rows: int, width: int, rounds: int) -> tuple[list[str], list[str]]:
    model = export(NETWORKS[name])
    source = source_of(model)
    begin = time.perf_counter()
    chosen = place(source, strip_rows=rows)
    placed_s = time.perf_counter() - begin
    every = candidates(source.frontiers)
    choices = {"every": every, "none": [], "chosen": sorted(chosen)}
    graphs = {choice: body(source, carry, rows, width) for choice, carry in choices.items()}
    graphs["pass"] = model, {"batch": 1, "height": STRIPS_IN_PASS * rows, "width": width}
    seconds = seconds_in_turn({key: runner(open_session(*graph)) for key, graph in graphs.items()}, rounds)
    costs, lines = StripCosts(source), []
    for choice, carry in choices.items():
        ratio = [STRIPS_IN_PASS * a / b for a, b in zip(seconds[choice], seconds["pass"], strict=True)]
        predicted = costs.strip(frozenset(carry), rows) / costs.whole(rows)
        lines.append(
            f"| {name} | {choice} | {len(carry)} of {len(every)} | {predicted:.3f} | {statistics.median(ratio):.3f} "
            f"| {min(ratio):.3f} to {max(ratio):.3f} | {statistics.median(seconds[choice]) * 1000:.0f} "
            f"| {f'{placed_s:.2f}' if choice == 'chosen' else ''} |"
        )
    kernels = [
        operators(name, "a strip of a pass", profiled(*graphs["pass"]), STRIPS_IN_PASS),
        operators(name, "chosen", profiled(*graphs["chosen"]), 1),
    ]
    return lines, kernels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    lines, kernels = [], []
    for name in options.networks:
        print(name, file=sys.stderr)
        found = measure(name, options.rows, options.width, options.rounds)
        lines += found[0]
        kernels += found[1]
    print(describe_machine())
    print(f"\nStrips of {options.rows} x {options.width} pixels, 2 threads, {options.rounds} rounds in turn.")
    print(f"Predicted with MAC_PER_BYTE = {MAC_PER_BYTE}. Times are by those of the same rows of a whole pass.\n")
    print("| network | carried | maps | predicted | measured, median | all rounds | ms | placed in s |")
    print("|---|---|---|---|---|---|---|---|")
    print("\n".join(lines))
    print("\nMilliseconds by operator, and the multiply-accumulates that a copied byte takes as long as:\n")
    print(
        "| network | graph | Conv | ConvTranspose | Concat | Slice | ReorderInput | ReorderOutput | others | sum "
        "| MAC per byte |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    print("\n".join(kernels))


if __name__ == "__main__":
    main()
