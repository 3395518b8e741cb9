"""What ONNX Runtime opens is not refused for its form, and gives what one pass of ONNX Runtime gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from exactile.errors import ExactileError, ModelError
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource
from exactile_converters.deploy import deploy, load_network

N = helper.make_node
KERNEL = np.random.default_rng(1).integers(-2, 3, (4, 3, 3, 3)).astype(np.float32)
IMAGE = np.random.default_rng(2).integers(0, 9, (48, 40, 3)).astype(np.float32)
CONV = N("Conv", ["x", "k"], ["a"], pads=[1] * 4)


def model(nodes, *, output=("n", 4, "h", "w"), constants=(), domains=(("", 17),), ir_version=8) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, output)],
        [numpy_helper.from_array(KERNEL, "k"), *constants],
    )
    imports = [helper.make_opsetid(*domain) for domain in domains]
    return helper.make_model(graph, opset_imports=imports, ir_version=ir_version)


def tiled(path: Path) -> np.ndarray:
    session = Session(deploy(load_network(path), image_dtype="float32", output="raw"), memory_bytes=1 << 40)
    sink = ArraySink()
    session.segment(ArraySource(IMAGE), sink, plan="tile", tile=(16, 24))
    session.close()
    return sink.result


def whole(path: Path) -> np.ndarray:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.ascontiguousarray(IMAGE.transpose(2, 0, 1)[None])})[0][0]


def branches(op="Neg"):
    """Two subgraphs of "a", the second in another If."""
    info = helper.make_tensor_value_info
    constant = N("Constant", [], ["two"], value=numpy_helper.from_array(np.float32(2)))
    yes = helper.make_graph([constant, N("Mul", ["a", "two"], ["r"])], "yes", [], [info("r", TensorProto.FLOAT, None)])
    inner = helper.make_graph([N(op, ["a"], ["i"])], "inner", [], [info("i", TensorProto.FLOAT, None)])
    no = helper.make_graph(
        [N("If", ["c"], ["q"], then_branch=yes, else_branch=inner)], "no", [], [info("q", TensorProto.FLOAT, None)]
    )
    return {"then_branch": yes, "else_branch": no}


def true(value=True):
    return numpy_helper.from_array(np.array(value), "c")


FORMS = {
    "the default domain by its full name": model(
        [N("Conv", ["x", "k"], ["a"], pads=[1] * 4, domain="ai.onnx"), N("Relu", ["a"], ["y"], domain="ai.onnx")],
        domains=[("ai.onnx", 17)],
    ),
    "both names of the domain": model(
        [CONV, N("Relu", ["a"], ["y"], domain="ai.onnx")], domains=[("", 17), ("ai.onnx", 17)]
    ),
    "an output without shape": model([CONV, N("Relu", ["a"], ["y"])], output=None),
    "nodes out of order": model([N("Relu", ["a"], ["y"]), CONV]),
    "If on a constant": model([CONV, N("If", ["c"], ["y"], **branches())], constants=[true()]),
    "If in If": model([CONV, N("If", ["c"], ["y"], **branches())], constants=[true(False)]),
    "If on the number of channels": model(
        [
            CONV,
            N("Shape", ["a"], ["s"]),
            N("Gather", ["s", "one"], ["channels"]),
            N("Equal", ["channels", "four"], ["c"]),
            N("If", ["c"], ["b"], **branches()),
            N("Abs", ["b"], ["y"]),
        ],
        constants=[numpy_helper.from_array(np.int64(1), "one"), numpy_helper.from_array(np.int64(4), "four")],
    ),
}


@pytest.mark.parametrize("proto", FORMS.values(), ids=FORMS.keys())
def test_a_form_that_onnx_runtime_opens_runs_in_tiles(tmp_path, proto):
    """Equal to one pass, bit for bit."""
    path = tmp_path / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    assert np.array_equal(tiled(path), whole(path))


def test_a_branch_that_follows_the_size_is_an_obstacle(tmp_path):
    """More than 200 rows: tiles have fewer."""
    proto = model(
        [
            CONV,
            N("Shape", ["x"], ["rows"], start=2, end=3),
            N("Greater", ["rows", "limit"], ["c"]),
            N("If", ["c"], ["y"], **branches()),
        ],
        constants=[numpy_helper.from_array(np.array([200]), "limit")],
    )
    path = tmp_path / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    assert [o.op for o in load_network(path).trace().obstacles] == ["If"]


def save_external(folder: Path, location: str) -> None:
    proto = model([CONV, N("Relu", ["a"], ["y"])])
    onnx.save(proto, folder / "m.onnx", save_as_external_data=True, location="data", size_threshold=0)
    stored = onnx.load(folder / "m.onnx", load_external_data=False)
    for entry in stored.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = location
    (folder / "m.onnx").write_bytes(stored.SerializeToString())


def test_model_and_weights_may_be_links_as_in_a_hub_s_cache(tmp_path):
    """snapshots/r/m.onnx and its weights point into blobs/."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "r"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    save_external(tmp_path, "data")
    for name in ("m.onnx", "data"):
        (tmp_path / name).rename(blobs / f"hash-{name}")
        (snapshot / name).symlink_to(blobs / f"hash-{name}")
    assert np.array_equal(tiled(snapshot / "m.onnx"), whole(snapshot / "m.onnx"))


@pytest.mark.parametrize("location", ["../data", "/etc/hostname", "a/../../data", "..\\data", ""])
def test_weights_elsewhere_are_not_opened(tmp_path, location):
    """The model names the file, so it may name none outside of its folder."""
    folder = tmp_path / "model"
    folder.mkdir()
    save_external(folder, location)
    (folder / "data").rename(tmp_path / "data")
    with pytest.raises(ModelError, match="outside of the model's folder"):
        load_network(folder / "m.onnx")


def test_what_neither_checks_nor_opens_is_refused(tmp_path):
    """A node whose input nobody makes."""
    path = tmp_path / "m.onnx"
    path.write_bytes(model([N("Relu", ["nothing"], ["y"])]).SerializeToString())
    with pytest.raises(ExactileError, match="not a valid ONNX model"):
        load_network(path)
