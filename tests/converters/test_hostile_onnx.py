"""Broken and hostile ONNX files: a clear error in one line, quickly, in little memory, nothing read outside."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from exactile.errors import ModelError
from exactile_converters.prepare.from_onnx import load_network, prepare_network
from tests.support.nets import onnx_bytes

BOMB = 1 << 40
FLOAT = TensorProto.FLOAT


def image_info(*sizes):
    return helper.make_tensor_value_info("image", FLOAT, sizes or [1, 1, "h", "w"])


def output_info(kind=FLOAT):
    return helper.make_tensor_value_info("out", kind, ["on", "oc", "oh", "ow"])


def model_of(nodes, constants=(), *, opset=17, functions=(), image=None, domains=()) -> onnx.ModelProto:
    graph = helper.make_graph(list(nodes), "g", [image or image_info()], [output_info()], list(constants))
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=imports, functions=list(functions), ir_version=9)


def node(op: str, inputs: str, outputs: str = "out", **attributes):
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


def ints(name: str, *values: int):
    return numpy_helper.from_array(np.array(values, np.int64), name)


def claiming(name: str, *sizes: int, **fields) -> TensorProto:
    return TensorProto(name=name, dims=sizes, data_type=FLOAT, **fields)


# Runs in a process of its own, so that a bomb would hit the limit and not the tests.
LIMITED = """
import resource, sys, time
from exactile.errors import ModelError
from exactile_converters.prepare.from_onnx import load_network
import torch
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.monotonic()
try:
    obstacles = load_network(sys.argv[1]).trace().obstacles
    print(*obstacles or ["tileable"], sep="\\n")
except ModelError as error:
    print("ModelError:", error)
used = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10
assert used < 500, f"{used} MB"
"""


def verdict(path: Path) -> list[str]:
    """Lines that a process of its own prints about the model: obstacles, or the error."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED.replace("import torch\n", ""), str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def saved(tmp_path: Path, model: onnx.ModelProto) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def refused(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load_network(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


GOOD = onnx_bytes("unet_d1")
DAMAGED = {
    "empty": b"",
    "truncated": GOOD[: len(GOOD) // 2],
    "one byte": b"\x08",
    "zeros": bytes(5000),
    "random": np.random.default_rng(0).bytes(5000),
    "text": b"# a model\nname: unet\n" * 100,
    "picture": b"\x89PNG\r\n\x1a\n" + bytes(500),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_file_that_is_no_model_is_refused_in_one_line(tmp_path, case):
    path = tmp_path / "model.onnx"
    path.write_bytes(DAMAGED[case])
    refused(path)


@pytest.mark.parametrize("part", range(1, 8))
def test_a_model_cut_anywhere_is_refused(tmp_path, part):
    path = tmp_path / "model.onnx"
    path.write_bytes(GOOD[: len(GOOD) * part // 8])
    refused(path)


BROKEN = {
    "cycle": model_of([node("Add", "image b", "a"), node("Relu", "a", "b"), node("Relu", "b")]),
    "missing initialiser": model_of([node("Conv", "image nowhere")]),
    "two values of one name": model_of([node("Relu", "image", "a"), node("Abs", "image", "a"), node("Relu", "a")]),
    "opset of the future": model_of([node("Relu", "image")], opset=9999),
    "opset 0": model_of([node("Relu", "image")], opset=0),
    "no such operator": model_of([node("Conq", "image")]),
    "wrong number of inputs": model_of([node("Conv", "image")]),
    "tensor that claims 2 GB": model_of([node("Add", "image w")], [claiming("w", 1 << 29)]),
    "tensor that claims 2 GB and holds 4 bytes": model_of(
        [node("Add", "image w")], [claiming("w", 1 << 29, raw_data=bytes(4))]
    ),
    "tensor shorter than its shape": model_of([node("Add", "image w")], [claiming("w", 8, raw_data=bytes(16))]),
    "negative size": model_of([node("Add", "image w")], [claiming("w", -4, raw_data=bytes(16))]),
    "constant that claims 2 GB": model_of(
        [node("Constant", "", "w", value=claiming("t", 1 << 29, raw_data=bytes(8))), node("Add", "image w")]
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_graph_is_refused_in_one_line(tmp_path, case):
    refused(saved(tmp_path, BROKEN[case]))


def function(name: str, *calls: str):
    values = ["x", *(f"v{i}" for i in range(len(calls) - 1)), "y"]
    nodes = [
        helper.make_node(call, [values[i]], [values[i + 1]], domain="" if call == "Relu" else "here")
        for i, call in enumerate(calls)
    ]
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("here", 1)]
    return helper.make_function("here", name, ["x"], ["y"], nodes, imports)


CALL = helper.make_node("f0", ["image"], ["out"], domain="here")


@pytest.mark.parametrize("calls", [("f0",), ("Relu", "f1")])
def test_functions_that_call_themselves_are_refused(calls):
    model = model_of([CALL], functions=[function("f0", *calls), function("f1", "f0")], domains=["here"])
    with pytest.raises(ModelError, match="recurse"):
        prepare_network(model, name="recursive")


def test_functions_that_multiply_are_refused():
    """Thirty functions that each call the next one twice would be a billion nodes."""
    functions = [function(f"f{i}", f"f{i + 1}", f"f{i + 1}") for i in range(30)]
    model = model_of([CALL], functions=[*functions, function("f30", "Relu")], domains=["here"])
    with pytest.raises(ModelError, match="nodes"):
        prepare_network(model, name="bomb")


def test_functions_that_share_others_are_written_out():
    functions = [function("f0", "f1", "f2", "f1", "f2"), function("f1", "f2"), function("f2", "Relu")]
    model = model_of([CALL], functions=functions, domains=["here"])
    assert prepare_network(model, name="shared").trace().geometry is not None


def external(tmp_path: Path, location: str, length: int | None = 64, offset: int = 0, elements: int = 16) -> Path:
    tensor = claiming("w", 1, 1, 1, elements)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    tensor.external_data.add(key="offset", value=str(offset))
    if length is not None:
        tensor.external_data.add(key="length", value=str(length))
    folder = tmp_path / "model"
    folder.mkdir()
    return saved(folder, model_of([node("Conv", "image w")], [tensor]))


def test_weights_in_a_file_beside_the_model_are_read(tmp_path):
    path = external(tmp_path, "weights.bin", length=None)
    (path.parent / "weights.bin").write_bytes(np.arange(16, dtype=np.float32).tobytes())
    assert load_network(path).trace().geometry.x.after == 15


@pytest.mark.parametrize(
    "location", ["{outside}", "../outside.bin", "a/../../outside.bin", "link.bin", "no_such.bin", ""]
)
def test_external_data_outside_the_models_folder_is_not_read(tmp_path, location):
    outside = tmp_path / "outside.bin"
    outside.write_bytes(np.arange(16, dtype=np.float32).tobytes())
    path = external(tmp_path, location.format(outside=outside))
    (path.parent / "a").mkdir()
    (path.parent / "link.bin").symlink_to(outside)
    refused(path)


@pytest.mark.parametrize(
    ("length", "offset", "elements"), [(64, 8, 16), (32, 0, 16), (-1, 0, 16), (64, -64, 16), (1 << 40, 0, 1 << 38)]
)
def test_external_data_that_its_file_does_not_hold_is_refused(tmp_path, length, offset, elements):
    path = external(tmp_path, "weights.bin", length=length, offset=offset, elements=elements)
    (path.parent / "weights.bin").write_bytes(np.arange(16, dtype=np.float32).tobytes())
    refused(path)


ONE = helper.make_tensor("v", FLOAT, [1], [1.0])
BOMBS = {
    "ConstantOfShape": model_of(
        [node("ConstantOfShape", "shape", "w", value=ONE), node("Add", "image w")], [ints("shape", 1, 1, BOMB, BOMB)]
    ),
    "Expand": model_of(
        [node("Expand", "one shape", "w"), node("Add", "image w")],
        [ints("shape", 1, 1, 1 << 20, 1 << 20), numpy_helper.from_array(np.ones(1, np.float32), "one")],
    ),
    "Expand, summed": model_of(
        [node("Expand", "one shape", "w"), node("ReduceSum", "w", "s", keepdims=0), node("Add", "image s")],
        [ints("shape", 1 << 20, 1 << 20), numpy_helper.from_array(np.ones(1, np.float32), "one")],
    ),
    "Range": model_of(
        [node("Range", "low high step", "r"), node("Cast", "r", "w", to=FLOAT), node("Add", "image w")],
        [numpy_helper.from_array(np.int64(value), name) for name, value in (("low", 0), ("high", BOMB), ("step", 1))],
    ),
    "Tile": model_of(
        [node("Tile", "one times", "w"), node("Add", "image w")],
        [ints("times", BOMB), numpy_helper.from_array(np.ones(1, np.float32), "one")],
    ),
    "Tile of the image": model_of([node("Tile", "image times")], [ints("times", 1, BOMB, 1, 1)]),
    "Pad": model_of([node("Pad", "image pads")], [ints("pads", 0, BOMB, 0, 0, 0, BOMB, 0, 0)]),
    "Slice": model_of(
        [
            node("ConstantOfShape", "shape", "s", value=helper.make_tensor("v", TensorProto.INT64, [1], [1])),
            node("Slice", "image s s s"),
        ],
        [ints("shape", 1 << 30)],
    ),
    "many at once": model_of(
        [
            *(node("Range", "low high step", f"r{i}") for i in range(400)),
            *(node("ReduceMax", f"r{i}", f"m{i}", keepdims=1) for i in range(400)),
            node("Concat", " ".join(f"m{i}" for i in range(400)), "m", axis=0),
            node("ReduceMax", "m", "top", keepdims=0),
            node("Cast", "top", "w", to=FLOAT),
            node("Add", "image w"),
        ],
        [numpy_helper.from_array(np.int64(v), n) for n, v in (("low", 0), ("high", 1 << 20), ("step", 1))],
    ),
    "Einsum": model_of(
        [node("Einsum", "v v v v v v", "w", equation="a,b,c,d,e,f->"), node("Add", "image w")],
        [numpy_helper.from_array(np.ones(1000, np.float32), "v")],
    ),
    "image of 2 GB": model_of([node("Relu", "image")], image=image_info(1, 1, 1 << 31, 1 << 31)),
    "channels of 2 GB": model_of([node("Relu", "image")], image=image_info(1, 1 << 31, "h", "w")),
    "Resize of an image of 2 GB": model_of(
        [node("Shape", "image", "s"), helper.make_node("Resize", ["image", "", "", "s"], ["out"])],
        image=image_info(1, 1, 1 << 31, 1 << 31),
    ),
}


@pytest.mark.parametrize("case", BOMBS)
def test_bombs_end_quickly_in_little_memory(tmp_path, case):
    """Any verdict will do, in lines without a traceback: what counts is what it takes to get there."""
    assert verdict(saved(tmp_path, BOMBS[case]))


def branch(name: str):
    return helper.make_graph(
        [helper.make_node("Relu", ["image"], [name])], name, [], [helper.make_tensor_value_info(name, FLOAT, None)]
    )


def test_control_flow_is_an_obstacle_though_no_input_of_it_is_a_map():
    """The branches take the image from the graph around them, unseen among the node's inputs."""
    count = helper.make_node("Size", ["image"], ["count"])
    many = helper.make_node("Greater", ["count", "limit"], ["yes"])
    choice = node("If", "yes", "chosen", then_branch=branch("a"), else_branch=branch("b"))
    limit = numpy_helper.from_array(np.array(5), "limit")
    traced = prepare_network(model_of([count, many, choice, node("Add", "image chosen")], [limit]), name="if").trace()
    assert [obstacle.op for obstacle in traced.obstacles] == ["If"]


def test_an_unknown_operator_is_an_obstacle_that_names_its_domain():
    foreign = helper.make_node("Magic", ["image"], ["out"], domain="com.example", name="spell")
    traced = prepare_network(model_of([foreign], domains=["com.example"]), name="magic").trace()
    assert [(o.node, o.op) for o in traced.obstacles] == [("spell", "Magic")]
    assert "com.example" in traced.obstacles[0].reason


def test_a_chain_of_20000_nodes_is_no_problem_for_the_stack():
    count = 20_000
    chain = [node("Relu", f"v{i}" if i else "image", f"v{i + 1}" if i < count - 1 else "out") for i in range(count)]
    from exactile_converters.onnx_files.untrusted import check_functions, check_tensors

    model = model_of(chain)
    check_tensors(model, "chain", None)
    check_functions(model, "chain")


def nested(number: int, content: bytes) -> bytes:
    """A protobuf field that holds a message."""
    size, length = len(content), bytearray()
    while size > 127:
        length.append(size & 127 | 128)
        size >>= 7
    return bytes([number << 3 | 2, *length, size]) + content


def test_subgraphs_nested_too_deep_are_refused(tmp_path):
    """Node, attribute, graph, node, attribute, graph ... 2000 deep."""
    graph = b""
    for _ in range(2000):
        graph = nested(1, nested(5, nested(6, graph)))
    path = tmp_path / "model.onnx"
    path.write_bytes(nested(7, graph))
    refused(path)
