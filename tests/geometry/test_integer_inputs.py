"""A network that takes integers gets the samples as they are, or the image is refused: none is wrapped or cut."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from exactile.contract import ImageStatistics
from exactile.errors import OptionError
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource
from exactile_converters.deploy import Normalization, deploy, inspect_network
from exactile_converters.prepare.from_onnx import prepare_network
from tests.support.command import exactile

RANDOM = np.random.default_rng(17)
WEIGHTS = RANDOM.normal(size=(3, 1, 3, 3)).astype(np.float32)
WEIGHTS -= WEIGHTS.mean((2, 3), keepdims=True)
INTEGERS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "int64")


def network(taken: str) -> bytes:
    """Takes ``taken``, casts it, and convolves."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(taken))
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["f", "w"], ["y"], pads=[1] * 4),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, ["N", 1, "H", "W"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3, "H", "W"])],
        [numpy_helper.from_array(WEIGHTS, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def read(taken: str):
    return prepare_network(onnx.load_from_string(network(taken)), name="net.onnx")


def image_of(dtype: str) -> np.ndarray:
    """Samples over all that the type holds, of floats also beyond 16 bits."""
    if dtype == "float32":
        return RANDOM.uniform(-70000, 70000, (50, 44)).astype(np.float32)
    return RANDOM.integers(0, np.iinfo(dtype).max, (50, 44), endpoint=True).astype(dtype)


HELD = {
    "uint8": {"uint8"},
    "int8": set(),
    "uint16": {"uint8", "uint16"},
    "int16": {"uint8"},
    "uint32": {"uint8", "uint16"},
    "int32": {"uint8", "uint16"},
    "int64": {"uint8", "uint16"},
}


@pytest.mark.parametrize("taken", INTEGERS)
@pytest.mark.parametrize("stored", ["uint8", "uint16", "float32"])
def test_samples_arrive_as_they_are_or_are_refused(taken, stored):
    image = image_of(stored)
    if stored not in HELD[taken]:
        with pytest.raises(OptionError, match=f"takes {taken} .* the image holds {stored} samples"):
            deploy(read(taken), image_dtype=stored)
        return
    (scores,) = ort.InferenceSession(network(taken)).run(None, {"x": image[None, None].astype(taken)})
    for plan, tile in (("whole", None), ("tile", (24, 24)), ("strip", (16, 40))):
        sink = ArraySink()
        Session(deploy(read(taken), image_dtype=stored)).segment(ArraySource(image), sink, plan=plan, tile=tile)
        assert np.array_equal(sink.result, scores[0].argmax(0))


@pytest.mark.parametrize(
    "normalization",
    [
        Normalization(scale=(255.0,)),
        Normalization(mean=(0.5,)),
        Normalization(std=(2.0,)),
        Normalization(statistics=ImageStatistics(kind="zscore")),
        Normalization(statistics=ImageStatistics(kind="percentile")),
    ],
)
def test_integers_cannot_be_normalised(normalization):
    with pytest.raises(OptionError, match=r"would lose their fractions\. Leave --scale"):
        deploy(read("uint8"), image_dtype="uint8", normalization=normalization)


def test_samples_beyond_float16_are_refused_unless_they_are_divided():
    with pytest.raises(OptionError, match=r"ends at 65504, .* e\.g\. --scale 65535"):
        deploy(read("float16"), image_dtype="uint16")
    deploy(read("float16"), image_dtype="uint16", normalization=Normalization(scale=(65535.0,)))


def test_a_bundle_takes_what_its_network_takes(tmp_path):
    for taken, stored in (("uint8", "uint8"), ("uint16", "uint16"), ("int32", "uint8")):
        (tmp_path / "m.onnx").write_bytes(network(taken))
        done = exactile("convert", tmp_path / "m.onnx", "-o", tmp_path / taken, "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["image"]["dtype"] == stored
        assert exactile("info", tmp_path / taken, "--test").returncode == 0


def test_networks_that_take_integers_are_inspected_with_memory_and_labels():
    for taken in ("uint8", "uint16", "int32"):
        found = inspect_network(read(taken))
        assert found.memory is not None
        assert found.result is not None
