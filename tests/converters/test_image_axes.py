"""Image inputs without a batch dimension: told by the first convolution, and run as others are."""

from __future__ import annotations

import itertools
from contextlib import closing

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from exactile.errors import ModelError
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource
from exactile_converters.deploy import deploy, load_network
from tests.support.optimized_models import many_operators, quantized

N = helper.make_node
IMAGE = np.random.default_rng(1).integers(0, 9, (48, 40, 3), dtype=np.uint8)
KERNEL = np.random.default_rng(2).integers(-2, 3, (4, 3, 3, 3)).astype(np.float32)


def network(*, channels_last: bool, squeezed: bool, integers: bool, sizes: tuple) -> onnx.ModelProto:
    nodes = [
        N("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        N("Transpose", ["f"], ["t"], perm=[2, 0, 1] if channels_last else [0, 1, 2]),
        N("Unsqueeze", ["t", "zero"], ["u"]),
        N("Conv", ["u", "k"], ["c"], pads=[1] * 4),
        N("Squeeze", ["c", "zero"], ["y"]) if squeezed else N("Relu", ["c"], ["y"]),
    ]
    kind = TensorProto.UINT8 if integers else TensorProto.FLOAT
    shape = [*sizes, 3] if channels_last else [3, *sizes]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(KERNEL, "k"), numpy_helper.from_array(np.array([0]), "zero")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(("channels_last", "squeezed", "integers"), [*itertools.product((False, True), repeat=3)])
@pytest.mark.parametrize("sizes", [("h", "w"), IMAGE.shape[:2]])
def test_an_image_input_of_three_dimensions_is_taken(tmp_path, channels_last, squeezed, integers, sizes):
    path = tmp_path / "m.onnx"
    onnx.save(network(channels_last=channels_last, squeezed=squeezed, integers=integers, sizes=sizes), path)
    image = IMAGE if integers else IMAGE.astype(np.float32)
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    expected = session.run(None, {"x": image if channels_last else np.ascontiguousarray(image.transpose(2, 0, 1))})[0]
    deployed = deploy(load_network(path), image_dtype=image.dtype.name, output="raw")
    with closing(Session(deployed, memory_bytes=1 << 40, threads=1)) as session:
        for plan, tile in (("tile", (16, 24)), ("strip", (16, 40))):
            sink = ArraySink()
            session.segment(ArraySource(image), sink, plan=plan, tile=tile)
            assert np.array_equal(sink.result, expected.reshape(expected.shape[-3:]))


def test_a_network_of_sequences_is_no_network_of_images(tmp_path):
    """Batch, channels and one axis."""
    graph = helper.make_graph(
        [N("Conv", ["x", "k"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, "length"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(KERNEL[:, :, 0], "k")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="4 dimensions"):
        load_network(tmp_path / "m.onnx")


def test_the_channels_of_a_quantised_network_are_those_of_its_first_convolution(tmp_path):
    """The input says nothing."""
    model = quantized(many_operators(), tmp_path)
    for dim in model.graph.input[0].type.tensor_type.shape.dim:
        dim.dim_param = f"any {len(dim.dim_param)}"
    onnx.save(model, tmp_path / "m.onnx")
    found = load_network(tmp_path / "m.onnx")
    assert (found.labels, found.channels) == (("n", "c", "y", "x"), 3)
