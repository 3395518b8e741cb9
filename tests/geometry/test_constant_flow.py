"""Loops and sequences that are the same for every image are written out, and run in tiles and strips as in one pass."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource
from exactile_converters.deploy import deploy, load_network
from exactile_converters.deploy_whole import deploy_whole

N = helper.make_node
INT64 = TensorProto.INT64
INFO = helper.make_tensor_value_info
KERNEL = np.random.default_rng(1).integers(-2, 3, (4, 3, 3, 3)).astype(np.float32)
AGAIN = np.random.default_rng(2).integers(-1, 2, (4, 4, 3, 3)).astype(np.float32)
IMAGE = np.random.default_rng(3).integers(0, 9, (48, 40, 3)).astype(np.float32)


def number(name: str, value, dtype=np.int64) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(value, dtype), name)


CONSTANTS = [
    numpy_helper.from_array(KERNEL, "k"),
    numpy_helper.from_array(AGAIN, "k2"),
    *(number(name, value) for name, value in (("zero", 0), ("one", 1), ("two", 2), ("three", 3), ("back", -1))),
    number("yes", True, np.bool_),
    number("no", False, np.bool_),
    number("sizes", [1, 2, 1]),
    number("channels", [1]),
]


def model(*nodes: onnx.NodeProto, opset: int = 18) -> onnx.ModelProto:
    """A convolution from "x" to "a", and ``nodes`` from there to "y"."""
    graph = helper.make_graph(
        [N("Conv", ["x", "k"], ["a"], pads=[1] * 4), *nodes],
        "g",
        [INFO("x", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [INFO("y", TensorProto.FLOAT, None)],
        CONSTANTS,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def body(*nodes: onnx.NodeProto, carried: int = 1, listed: int = 0, going: str = "go") -> onnx.GraphProto:
    """Of a loop: takes "i", "going" and "v0" ..., gives "go", "w0" ... and the lists "l0" ..."""
    first = [N("Identity", ["going"], ["go"])] if going == "go" else []
    return helper.make_graph(
        [*first, *nodes],
        "body",
        [
            INFO("i", TensorProto.INT64, []),
            INFO("going", TensorProto.BOOL, []),
            *(INFO(f"v{n}", TensorProto.FLOAT, None) for n in range(carried)),
        ],
        [
            INFO(going, TensorProto.BOOL, []),
            *(INFO(f"w{n}", TensorProto.FLOAT, None) for n in range(carried)),
            *(INFO(f"l{n}", TensorProto.FLOAT, None) for n in range(listed)),
        ],
    )


def convolve(source: str, target: str) -> onnx.NodeProto:
    return N("Conv", [source, "k2"], [target], pads=[1] * 4)


def by_round(listed: int = 0) -> onnx.GraphProto:
    """In the second round, another branch."""
    info = [INFO("t", TensorProto.FLOAT, None)], [INFO("e", TensorProto.FLOAT, None)]
    branches = {
        "then_branch": helper.make_graph([N("Neg", ["c"], ["t"])], "then", [], info[0]),
        "else_branch": helper.make_graph([N("Relu", ["c"], ["e"])], "else", [], info[1]),
    }
    chosen = N("If", ["second"], ["w0"], **branches)
    found = body(convolve("v0", "c"), N("Equal", ["i", "one"], ["second"]), chosen)
    if listed:
        found.output.append(INFO("w0", TensorProto.FLOAT, None))
    return found


def counted() -> onnx.GraphProto:
    """Ends itself when its counter, the second value that it carries, has reached three."""
    found = body(
        convolve("v0", "w0"),
        N("Add", ["v1", "one"], ["w1"]),
        N("Less", ["w1", "three"], ["less"]),
        carried=2,
        going="less",
    )
    for value in (found.input[3], found.output[2]):
        value.CopyFrom(INFO(value.name, TensorProto.INT64, []))
    return found


def collecting() -> onnx.GraphProto:
    """Inserts what it makes in a sequence that it carries."""
    found = body(convolve("v0", "w0"), N("SequenceInsert", ["v1", "w0"], ["w1"]), carried=2)
    for value in (found.input[3], found.output[2]):
        value.CopyFrom(helper.make_tensor_sequence_value_info(value.name, TensorProto.FLOAT, None))
    return found


def doubled() -> onnx.GraphProto:
    return helper.make_graph(
        [N("Add", ["e", "e"], ["o"])],
        "doubled",
        [INFO("e", TensorProto.FLOAT, None)],
        [INFO("o", TensorProto.FLOAT, None)],
    )


LOOPS = {
    "a number of rounds": [N("Loop", ["three", "", "a"], ["y"], body=body(convolve("v0", "w0")))],
    "no round": [
        N("Loop", ["zero", "yes", "a"], ["b"], body=body(convolve("v0", "w0"))), N("Abs", ["b"], ["y"]),
    ],
    "a condition that is false": [
        N("Loop", ["three", "no", "a"], ["b"], body=body(convolve("v0", "w0"))), N("Abs", ["b"], ["y"]),
    ],
    "the round computes": [
        N("Loop", ["three", "yes", "a"], ["y"], body=body(
            convolve("v0", "c"), N("Cast", ["i"], ["f"], to=TensorProto.FLOAT), N("Add", ["c", "f"], ["w0"]))),
    ],
    "the round chooses a branch": [N("Loop", ["three", "yes", "a"], ["y"], body=by_round())],
    "a counter that ends it": [N("Loop", ["", "yes", "a", "zero"], ["y", "count"], body=counted())],
    "a loop in a loop": [
        N("Loop", ["two", "yes", "a"], ["y"], body=body(
            N("Loop", ["two", "yes", "v0"], ["w0"], body=helper.make_graph(
                [N("Identity", ["g2"], ["h2"]), convolve("u", "r")],
                "inner",
                [INFO("j", INT64, []), INFO("g2", TensorProto.BOOL, []), INFO("u", TensorProto.FLOAT, None)],
                [INFO("h2", TensorProto.BOOL, []), INFO("r", TensorProto.FLOAT, None)])))),
    ],
    "listed results": [
        N("Loop", ["three", "yes", "a"], ["b", "listed"], body=body(
            convolve("v0", "w0"), N("Relu", ["w0"], ["l0"]), listed=1)),
        N("ReduceMax", ["listed", "axes0"], ["m"], keepdims=0), N("Add", ["m", "b"], ["y"]),
    ],
    "listed results of branches": [
        N("Loop", ["three", "yes", "a"], ["b", "listed"], body=by_round(listed=1)),
        N("ReduceMax", ["listed", "axes0"], ["m"], keepdims=0), N("Add", ["m", "b"], ["y"]),
    ],
    "a sequence that is carried": [
        N("SequenceEmpty", [], ["none"]),
        N("Loop", ["three", "yes", "a", "none"], ["b", "all"], body=collecting()),
        N("ConcatFromSequence", ["all"], ["y"], axis=1),
    ],
}  # fmt: skip

SEQUENCES = {
    "SequenceAt": [
        N("Relu", ["a"], ["r"]), N("SequenceConstruct", ["a", "r"], ["s"]), N("SequenceAt", ["s", "back"], ["y"]),
    ],
    "SequenceInsert and SequenceErase": [
        N("Relu", ["a"], ["r"]), N("Neg", ["a"], ["g"]), N("SequenceConstruct", ["a", "r"], ["s"]),
        N("SequenceInsert", ["s", "g", "one"], ["s2"]), N("SequenceErase", ["s2", "zero"], ["s3"]),
        N("SequenceInsert", ["s3", "a"], ["s4"]), N("SequenceErase", ["s4"], ["s5"]),
        N("ConcatFromSequence", ["s5"], ["y"], axis=1),
    ],
    "SequenceLength": [
        N("SequenceConstruct", ["a", "a"], ["s"]), N("SequenceLength", ["s"], ["n"]),
        N("Cast", ["n"], ["f"], to=TensorProto.FLOAT), N("Mul", ["a", "f"], ["y"]),
    ],
    "a new axis": [
        N("Relu", ["a"], ["r"]), N("SequenceConstruct", ["a", "r"], ["s"]),
        N("ConcatFromSequence", ["s"], ["c"], axis=1, new_axis=1), N("ReduceSum", ["c", "channels"], ["y"], keepdims=0),
    ],
    "SplitToSequence by a size": [
        N("SplitToSequence", ["a", "three"], ["s"], axis=1), N("SequenceAt", ["s", "one"], ["y"]),
    ],
    "SplitToSequence by sizes": [
        N("SplitToSequence", ["a", "sizes"], ["s"], axis=-3, keepdims=0), N("SequenceAt", ["s", "one"], ["y"]),
    ],
    "SplitToSequence of single channels": [
        N("SplitToSequence", ["a"], ["s"], axis=1, keepdims=0), N("SequenceAt", ["s", "two"], ["e"]),
        N("Unsqueeze", ["e", "channels"], ["y"]),
    ],
    "SplitToSequence by one, as torch writes it": [
        N("SplitToSequence", ["a", "one"], ["s"], axis=1, keepdims=0), N("SequenceAt", ["s", "two"], ["e"]),
        N("Unsqueeze", ["e", "channels"], ["y"]),
    ],
    "SequenceMap": [
        N("Relu", ["a"], ["r"]), N("SequenceConstruct", ["a", "r"], ["s"]),
        N("SequenceMap", ["s"], ["t"], body=doubled()), N("ConcatFromSequence", ["t"], ["y"], axis=1),
    ],
    "Optional": [
        N("Optional", ["a"], ["o"]), N("OptionalGetElement", ["o"], ["b"]), N("OptionalHasElement", ["b"], ["c"]),
        N("If", ["c"], ["y"],
          then_branch=helper.make_graph([N("Abs", ["b"], ["t"])], "then", [], [INFO("t", TensorProto.FLOAT, None)]),
          else_branch=helper.make_graph([N("Neg", ["b"], ["e"])], "else", [], [INFO("e", TensorProto.FLOAT, None)])),
    ],
}  # fmt: skip


def one_pass(path: Path) -> np.ndarray:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["y"], {"x": np.ascontiguousarray(IMAGE.transpose(2, 0, 1)[None])})[0][0]


def with_axes(nodes) -> onnx.ModelProto:
    made = model(*nodes)
    made.graph.initializer.append(number("axes0", [0]))
    return made


@pytest.mark.parametrize("nodes", [*LOOPS.values(), *SEQUENCES.values()], ids=[*LOOPS, *SEQUENCES])
def test_what_is_the_same_for_every_image_is_written_out(tmp_path, nodes):
    """Equal to one pass of plain ONNX Runtime: all values are small integers."""
    path = tmp_path / "m.onnx"
    path.write_bytes(with_axes(nodes).SerializeToString())
    expected = one_pass(path)
    deployed = deploy(load_network(path), image_dtype="float32", output="raw")
    assert deployed.no_strips_reason == ""
    with closing(Session(deployed, memory_bytes=1 << 40, threads=1)) as session:
        for plan, tile in (("tile", (24, 24)), ("strip", (16, 40))):
            sink = ArraySink()
            session.segment(ArraySource(IMAGE), sink, plan=plan, tile=tile)
            assert np.array_equal(sink.result, expected)


def test_a_loop_that_is_not_written_out_to_its_end_stays_as_it_is(tmp_path):
    """It ends itself after 300 rounds: more than are written out, and a part of them would be another loop."""
    ending = counted()
    for node in ending.node:
        node.input[:] = ["hundreds" if name == "three" else name for name in node.input]
    proto = model(
        N("Loop", ["two", "yes", "a"], ["b"], body=body(convolve("v0", "w0"))),
        N("Loop", ["", "yes", "b", "zero"], ["y", "count"], body=ending),
    )
    proto.graph.initializer.append(number("hundreds", 300))
    assert obstacles(tmp_path / "m.onnx", proto) == {"Loop"}
    left = [node for node in load_network(tmp_path / "m.onnx").model.graph if node.op_type == "Loop"]
    assert len(left) == 1
    assert left[0].inputs[3].const_value.numpy() == 0


def test_a_loop_over_the_rows_of_the_image_runs_in_one_pass(tmp_path):
    """At one size, the number of rounds is known."""
    nodes = [
        N("Shape", ["a"], ["shape"]),
        N("Gather", ["shape", "two"], ["rows"]),
        N("Div", ["rows", "ten"], ["rounds"]),
        N("Loop", ["rounds", "yes", "a"], ["y"], body=body(N("Relu", ["v0"], ["r"]), convolve("r", "w0"))),
    ]
    proto = model(*nodes)
    proto.graph.initializer.append(number("ten", 10))
    assert obstacles(tmp_path / "m.onnx", proto) == {"Loop"}
    network = load_network(tmp_path / "m.onnx")
    deployed = deploy_whole(network, image_size=IMAGE.shape[:2], image_dtype="float32", output="raw")
    with closing(Session(deployed, memory_bytes=1 << 40, threads=1)) as session:
        session.segment(ArraySource(IMAGE), sink := ArraySink())
    assert np.array_equal(sink.result, one_pass(tmp_path / "m.onnx"))


def obstacles(path: Path, proto: onnx.ModelProto) -> set[str]:
    path.write_bytes(proto.SerializeToString())
    ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return {obstacle.op for obstacle in load_network(path).trace().obstacles}


def test_a_loop_over_the_rows_of_the_image_is_an_obstacle(tmp_path):
    nodes = [
        N("Shape", ["a"], ["shape"]),
        N("Gather", ["shape", "two"], ["rows"]),
        N("Loop", ["rows", "yes", "a"], ["y"], body=body(convolve("v0", "w0"))),
    ]
    assert obstacles(tmp_path / "m.onnx", model(*nodes)) == {"Loop"}


def test_a_loop_that_pixels_end_is_an_obstacle(tmp_path):
    ending = body(
        convolve("v0", "w0"),
        N("ReduceMax", ["w0"], ["m"], keepdims=0),
        N("Cast", ["m"], ["positive"], to=TensorProto.BOOL),
        going="positive",
    )
    assert obstacles(tmp_path / "m.onnx", model(N("Loop", ["three", "yes", "a"], ["y"], body=ending))) == {"Loop"}


def test_a_loop_of_very_many_rounds_is_an_obstacle(tmp_path):
    proto = model(N("Loop", ["many", "yes", "a"], ["y"], body=body(convolve("v0", "w0"))))
    proto.graph.initializer.append(number("many", 1 << 40))
    assert obstacles(tmp_path / "m.onnx", proto) == {"Loop"}


def test_rows_taken_apart_are_an_obstacle(tmp_path):
    """How many there are follows from the image's size."""
    nodes = [N("SplitToSequence", ["a"], ["s"], axis=2), N("SequenceAt", ["s", "one"], ["y"])]
    assert obstacles(tmp_path / "m.onnx", model(*nodes)) == {"SplitToSequence"}
