"""Measure the cost of a Resize that can be computed in pieces, relative to ONNX Runtime's own Resize of the whole map.

``python -m benchmarks.placed_resize [--quick]``. One float32 map of batch 1 is resized to a size, with align_corners;
nearest takes the pixel below. Both graphs are run in turn by ONNX Runtime whose waiting threads do not spin, as
exactile runs it; the placed one makes the whole map as a single piece. ``largest difference`` is relative to the
largest value.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from benchmarks.harness.part import run_part
from benchmarks.harness.record import Record, Table
from benchmarks.harness.turns import in_turn, median_ratio, ratios, spread

OPSET = 19
SIZES = ((64, 128, 256), (64, 256, 512), (16, 256, 1024), (19, 128, 512))
"""Channels, side before and after."""
KINDS = {
    "nearest": {"mode": "nearest", "nearest_mode": "floor"},
    "linear": {"mode": "linear"},
    "cubic": {"mode": "cubic"},
}
COLUMNS = (
    "mode", "channels", "side", "threads", "Resize ns|.2f", "placed ns|.2f", "placed by Resize|.2f", "rounds",
    "largest difference|.1e",
)  # fmt: skip
PLACE_NAMES = ("begin", "count", "source", "source_size", "result_size")

Run = Callable[[], np.ndarray]


def session(nodes: list, inputs: list, constants: list, threads: int) -> ort.InferenceSession:
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, None, None, None])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, None, None, None])
    graph = helper.make_graph(nodes, "resize", [image, *inputs], [result], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(model.SerializeToString(), options)


def native(attributes: dict, x: np.ndarray, side: int, threads: int) -> Run:
    sizes = numpy_helper.from_array(np.array([*x.shape[:2], side, side]), "sizes")
    nodes = [helper.make_node("Resize", ["x", "", "", "sizes"], ["y"], **attributes)]
    opened = session(nodes, [], [sizes], threads)
    return lambda: opened.run(None, {"x": x})[0]


def placed(attributes: dict, x: np.ndarray, side: int, threads: int) -> Run:
    from exactile_converters.placed.place import Place
    from exactile_converters.placed.resampling import Resampling
    from exactile_converters.placed.resize import placed_resize
    from exactile_converters.strips.chunks import GraphBuilder

    build, feeds = GraphBuilder(), {"x": x}
    places = [Place(dim=dim, scale=None, **{name: f"{name}_{dim}" for name in PLACE_NAMES}) for dim in (2, 3)]
    made = placed_resize(build, "x", 4, places, Resampling.of("Resize", OPSET, attributes))
    for dim in (2, 3):
        values = (0, side, 0, x.shape[dim], side)
        feeds |= {f"{name}_{dim}": np.array([value]) for name, value in zip(PLACE_NAMES, values, strict=True)}
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, [1]) for name in feeds if name != "x"]
    nodes = [*build.nodes, helper.make_node("Identity", [made], ["y"])]
    opened = session(nodes, inputs, list(build.constants.values()), threads)
    return lambda: opened.run(None, feeds)[0]


def measure(options: argparse.Namespace) -> Iterator[Record]:
    rounds = options.rounds or (3 if options.quick else 15)
    table = Table(title="Nanoseconds by value of the result, medians", columns=COLUMNS)
    for kind, own in KINDS.items():
        attributes = {**own, "coordinate_transformation_mode": "align_corners"}
        for channels, before, after in SIZES[:1] if options.quick else SIZES:
            x = np.random.default_rng(0).standard_normal((1, channels, before, before)).astype(np.float32)
            for threads in (1, 2):
                ways = {
                    "Resize": native(attributes, x, after, threads),
                    "placed": placed(attributes, x, after, threads),
                }
                expected, found = (way() for way in ways.values())
                seconds = in_turn(ways, 5 if kind == "cubic" else rounds, warm_up=1)
                by_value = [statistics.median(seconds[name]) / found.size * 1e9 for name in ways]
                by_own = seconds["placed"], seconds["Resize"]
                table.add(
                    kind,
                    channels,
                    f"{before} -> {after}",
                    threads,
                    *by_value,
                    median_ratio(*by_own),
                    spread(ratios(*by_own)),
                    float(np.abs(found - expected).max() / np.abs(expected).max()),
                )
    yield Record(
        part="placed_resize",
        title="A Resize in pieces",
        tables=[table],
        remarks=__doc__.split("\n\n", 1)[1].strip(),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int)
    run_part(measure, parser)


if __name__ == "__main__":
    main()
