"""Oddities of a file that change nothing in what it computes: types, versions, metadata, sparse weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from exactile import ArraySink, ArraySource, Session
from exactile.errors import ModelError
from exactile_converters.deploy import deploy
from exactile_converters.prepare.from_onnx import load_network

KERNEL = numpy_helper.from_array(np.random.default_rng(1).integers(-2, 3, (4, 3, 3, 3)).astype(np.float32), "k")
PICTURE = np.random.default_rng(2).integers(0, 9, (40, 48, 3)).astype(np.float32)


def network(*, opset=(("", 17),), domain="", nodes=None, constants=(KERNEL,)) -> onnx.ModelProto:
    conv = helper.make_node("Conv", ["x", "k"], ["a"], pads=[1] * 4, domain=domain)
    relu = helper.make_node("Relu", ["a"], ["y"], domain=domain)
    graph = helper.make_graph(
        nodes or [conv, relu],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4, "h", "w"])],
        list(constants),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid(*each) for each in opset], ir_version=8)


def one_pass(path: Path) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.ascontiguousarray(PICTURE.transpose(2, 0, 1)[None])})[0][0]


def tiled(path: Path) -> np.ndarray:
    sink = ArraySink()
    model = deploy(load_network(path), image_dtype="float32", output="raw")
    Session(model).segment(ArraySource(PICTURE), sink, plan="tile", tile=(16, 24))
    return sink.result


def output_without_type(model):
    model.graph.output[0].ClearField("type")


def input_without_shape(model):
    model.graph.input[0].type.tensor_type.ClearField("shape")


def wrong_value_info(model):
    model.graph.value_info.append(helper.make_tensor_value_info("a", TensorProto.FLOAT, ["n", 4, "h", "w2"]))


def no_graph_name(model):
    model.graph.ClearField("name")


def new_ir_version(model):
    model.ir_version = min(onnx.IR_VERSION, 13)


def old_ir_version(model):
    model.ir_version = 3
    model.graph.input.append(helper.make_tensor_value_info("k", TensorProto.FLOAT, KERNEL.dims))


def metadata_twice(model):
    for value in ("a", "b"):
        model.metadata_props.add(key="author", value=value)


def foreign_import(model):
    model.opset_import.append(helper.make_opsetid("com.example.nothing", 1))


def sparse_kernel(model):
    dense = numpy_helper.to_array(KERNEL)
    places = np.flatnonzero(dense)
    model.graph.initializer.pop()
    model.graph.sparse_initializer.append(
        helper.make_sparse_tensor(
            numpy_helper.from_array(dense.ravel()[places], "k"),
            numpy_helper.from_array(places.astype(np.int64), "places"),
            dense.shape,
        )
    )


ODDITIES = [
    *(output_without_type, input_without_shape, wrong_value_info, no_graph_name),
    *(new_ir_version, old_ir_version, metadata_twice, foreign_import, sparse_kernel),
]


@pytest.mark.parametrize("oddity", ODDITIES, ids=lambda oddity: oddity.__name__)
def test_what_onnx_runtime_runs_is_run_whatever_its_form(tmp_path, oddity):
    """Tiles of the odd model give what plain ONNX Runtime gives of the same file."""
    model = network()
    oddity(model)
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    np.testing.assert_array_equal(tiled(path), one_pass(path))


def test_one_domain_at_two_opsets_is_refused(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(network(opset=(("", 17), ("ai.onnx", 13))).SerializeToString())
    with pytest.raises(ModelError, match="opset 17 and at 13"):
        load_network(path)


def test_a_sparse_tensor_that_names_places_beyond_its_shape_is_refused(tmp_path):
    model = network()
    sparse_kernel(model)
    indices = model.graph.sparse_initializer[0].indices
    indices.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(indices) + 10**6, "places"))
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="places beyond its shape"):
        load_network(path)


def test_a_sparse_tensor_that_claims_gigabytes_is_refused(tmp_path):
    model = network()
    sparse_kernel(model)
    model.graph.sparse_initializer[0].dims[0] = 1 << 40
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="save the model again with dense weights"):
        load_network(path)
