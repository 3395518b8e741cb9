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
    """Any input besides the image is given ones."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = {given.name: np.ones(given.shape, np.float32) for given in session.get_inputs() if given.name != "x"}
    return session.run(["y"], {**feed, "x": np.ascontiguousarray(IMAGE.transpose(2, 0, 1)[None])})[0][0]


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


RELU = N("Relu", ["a"], ["y"])
TWICE = [CONV, N("twice", ["a"], ["y"], domain="own")]


def changed(change, nodes=(CONV, RELU), **options) -> onnx.ModelProto:
    proto = model(list(nodes), **options)
    change(proto)
    return proto


def with_function(opset: int, nodes) -> onnx.ModelProto:
    proto = model(TWICE, domains=[("", 17 if opset != 9 else 9), ("own", 1)])
    imports = [helper.make_opsetid("", opset)]
    proto.functions.append(helper.make_function("own", "twice", ["i"], ["o"], nodes, imports))
    return proto


def sparse_constant() -> onnx.NodeProto:
    values = helper.make_tensor("v", TensorProto.FLOAT, [1], [2.0])
    node = N("Constant", [], ["two"])
    sparse = helper.make_sparse_tensor(values, helper.make_tensor("i", TensorProto.INT64, [1], [0]), [1])
    node.attribute.append(helper.make_attribute("sparse_value", sparse))
    return node


def same(name: str):
    info = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
    return helper.make_graph([N("Identity", ["a"], [name])], name, [], [info])


def unnamed(proto):
    for node in proto.graph.node:
        node.ClearField("name")
    proto.graph.ClearField("name")


def old_inputs(proto):
    proto.graph.input.append(helper.make_tensor_value_info("k", TensorProto.FLOAT, KERNEL.shape))


def stale(proto):
    proto.graph.value_info.append(helper.make_tensor_value_info("a", TensorProto.FLOAT, [1, 5, 7, 0]))
    proto.graph.output[0].type.tensor_type.shape.dim[2].dim_value = 7


def odd_names(proto):
    dims = proto.graph.input[0].type.tensor_type.shape.dim
    dims[2].dim_param, dims[3].dim_param = "height (px)/2 + 1", "k"


def minus(proto):
    for dim in (0, 2, 3):
        proto.graph.input[0].type.tensor_type.shape.dim[dim].dim_value = -1


def noted(proto):
    proto.doc_string = proto.graph.doc_string = "x" * 5000
    for key in "zaz":
        proto.metadata_props.add(key=key, value="v")
    proto.opset_import.append(helper.make_opsetid("com.example", 3))
    proto.training_info.add().algorithm.CopyFrom(same("t"))


def further_input(proto):
    proto.graph.input.insert(0, helper.make_tensor_value_info("unused", TensorProto.FLOAT, [2]))


def further_outputs(proto):
    proto.graph.output.append(proto.graph.input[0])
    proto.graph.output.append(helper.make_tensor_value_info("k", TensorProto.FLOAT, KERNEL.shape))
    proto.graph.output.append(proto.graph.output[0])


def half(proto):
    kernel = numpy_helper.from_array(KERNEL.astype(np.float16), "stored")
    proto.graph.initializer[0].CopyFrom(kernel)
    proto.graph.node.insert(0, N("Cast", ["stored"], ["k"], to=TensorProto.FLOAT))


ONES = [numpy_helper.from_array(np.ones(4, np.float32), name) for name in ("s", "b", "m", "v")]
FORMS |= {
    "no names": changed(unnamed),
    "IR 3, initialisers as inputs": changed(old_inputs, domains=[("", 9)], ir_version=3),
    "IR 3, initialisers that are no inputs": changed(lambda _: None, domains=[("", 7)], ir_version=3),
    "wrong shapes": changed(stale),
    "odd names of dimensions": changed(odd_names),
    "sizes of -1": changed(minus),
    "notes, unknown domains, training": changed(noted),
    "an input that nobody reads": changed(further_input),
    "outputs that are inputs, constants or named twice": changed(further_outputs),
    "weights of half precision": changed(half),
    "an empty initialiser": model([CONV, RELU], constants=[numpy_helper.from_array(np.zeros(0, np.float32), "e")]),
    "a sparse constant": model([sparse_constant(), CONV, N("Mul", ["a", "two"], ["y"])]),
    "a function of a newer opset": with_function(18, [N("Relu", ["i"], ["o"])]),
    "a function of the model's old opset": with_function(9, [N("Add", ["i", "i"], ["o"])]),
    "branches that change nothing": model(
        [CONV, N("If", ["c"], ["b"], then_branch=same("t"), else_branch=same("e")), N("Abs", ["b"], ["y"])],
        constants=[true()],
    ),
    "batch normalisation that leaves out its outputs": model(
        [CONV, N("BatchNormalization", ["a", "s", "b", "m", "v"], ["y", "", "", "", ""])],
        constants=ONES,
        domains=[("", 9)],
    ),
    "Pad of ONNX Runtime's domain": model(
        [CONV, N("Pad", ["a", "p"], ["y"], domain="com.microsoft")],
        constants=[numpy_helper.from_array(np.array([0, 0, 1, 0, 0, 0, 1, 2]), "p")],
        domains=[("", 17), ("com.microsoft", 1)],
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


def test_old_batch_normalisation_with_named_outputs_trains(tmp_path):
    """ONNX Runtime takes its statistics from the image then, whoever reads them."""
    node = N("BatchNormalization", ["a", "s", "b", "m", "v"], ["y", "o1", "o2", "o3", "o4"])
    path = tmp_path / "m.onnx"
    path.write_bytes(model([CONV, node], constants=ONES, domains=[("", 9)]).SerializeToString())
    assert [o.reason for o in load_network(path).trace().obstacles] == ["batch normalisation is in training mode"]


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
