"""Probabilities are told from scores by what the graph can give; what it does not prove is said, and can be chosen."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from exactile.errors import EngineError, ModelError, OptionError
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource
from exactile_converters.deploy import Normalization, deploy
from exactile_converters.prepare.from_onnx import prepare_network
from tests.support.command import exactile, run_json

RANDOM = np.random.default_rng(11)
IMAGE = RANDOM.integers(0, 256, (64, 72), dtype=np.uint8)
PLANS = (("whole", None), ("tile", (24, 24)), ("strip", (16, 40)))
SCALE = Normalization(scale=(255.0,))


def taps(channels: int) -> np.ndarray:
    found = RANDOM.normal(size=(channels, 1, 3, 3)).astype(np.float32)
    return found - found.mean((2, 3), keepdims=True)


SCALARS = {
    "half": np.float32(0.5),
    "one": np.float32(1),
    "low": np.float32(1e-7),
    "high": np.float32(1 - 1e-7),
    "twice": np.array([1, 1, 2, 2], np.float32),
    "axis": np.array([1]),
    "first": np.array([1]),
    "stop": np.array([2]),
}


def network(*nodes, channels=1, stride=1, planes=1) -> bytes:
    """A convolution of ``channels``, ``s``, and nodes behind it that make ``y`` of ``planes`` channels."""
    behind = [helper.make_node(op, inputs.split(), [output], **attributes) for op, inputs, output, attributes in nodes]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["s"], pads=[1] * 4, strides=[stride] * 2), *behind],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1, "H", "W"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", planes, "h", "w"])],
        [numpy_helper.from_array(taps(channels), "w")]
        + [numpy_helper.from_array(np.asarray(array), name) for name, array in SCALARS.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8).SerializeToString()


def model(proto: bytes, image=IMAGE, **options):
    read = prepare_network(onnx.load_from_string(proto), name="net.onnx")
    return deploy(read, image_dtype=image.dtype.name, normalization=SCALE, **options)


def segmented(proto: bytes, image=IMAGE, plan="whole", tile=None, **options) -> np.ndarray:
    sink = ArraySink()
    Session(model(proto, image, **options)).segment(ArraySource(image), sink, plan=plan, tile=tile)
    return sink.result


def truth(proto: bytes, image=IMAGE) -> np.ndarray:
    return ort.InferenceSession(proto).run(None, {"x": image[None, None].astype(np.float32) / np.float32(255)})[0][0]


SIGMOID = ("Sigmoid", "s", "p", {})
PROBABILITIES = {
    "sigmoid": network(("Sigmoid", "s", "y", {})),
    "sigmoid, clipped": network(SIGMOID, ("Clip", "p low high", "y", {})),
    "sigmoid, averaged": network(SIGMOID, ("AveragePool", "p", "y", {"kernel_shape": [3, 3], "pads": [1] * 4})),
    "one minus sigmoid": network(SIGMOID, ("Sub", "one p", "y", {})),
    "mean of two": network(SIGMOID, ("Sigmoid", "s", "q", {}), ("Add", "p q", "sum", {}), ("Mul", "sum half", "y", {})),
    "square": network(SIGMOID, ("Mul", "p p", "y", {})),
    "hard sigmoid": network(("HardSigmoid", "s", "y", {})),
    "foreground of a softmax": network(
        ("Softmax", "s", "p", {"axis": 1}), ("Slice", "p first stop axis", "y", {}), channels=2
    ),
    "tanh, moved": network(("Tanh", "s", "t", {}), ("Add", "t one", "u", {}), ("Mul", "u half", "y", {})),
}


def resized() -> bytes:
    """The sigmoid at half the size, brought back by a linear Resize: an empty input lies between."""
    proto = onnx.load_from_string(network(("Sigmoid", "s", "y", {}), stride=2))
    proto.graph.node[-1].output[0] = "p"
    proto.graph.node.append(helper.make_node("Resize", ["p", "", "twice"], ["y"], mode="linear"))
    return proto.SerializeToString()


PROBABILITIES["sigmoid, resized"] = resized()


@pytest.mark.parametrize("name", PROBABILITIES)
@pytest.mark.parametrize(("plan", "tile"), PLANS)
def test_what_is_within_0_and_1_is_a_probability_and_gets_no_second_activation(name, plan, tile):
    proto = PROBABILITIES[name]
    result = model(proto).contract.result
    assert not result.doubt
    want = truth(proto)[0]
    assert np.array_equal(segmented(proto, plan=plan, tile=tile), want > 0.5)
    assert np.abs(segmented(proto, plan=plan, tile=tile, output="probabilities")[0] - want).max() < 1e-6


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9])
def test_the_threshold_is_one_of_the_probability_for_scores_probabilities_and_logarithms(threshold):
    def sigmoid(values):
        return 1 / (1 + np.exp(-values.astype(np.float64)))

    scores = network(("Identity", "s", "y", {}))
    assert np.array_equal(segmented(scores, threshold=threshold), sigmoid(truth(scores)[0]) > threshold)
    plain = PROBABILITIES["sigmoid"]
    assert np.array_equal(segmented(plain, threshold=threshold), truth(plain)[0] > threshold)
    logarithms = network(("LogSoftmax", "s", "p", {"axis": 1}), ("Slice", "p first stop axis", "y", {}), channels=2)
    assert np.array_equal(segmented(logarithms, threshold=threshold), np.exp(truth(logarithms)[0]) > threshold)
    maps = segmented(logarithms, output="probabilities")[0]
    assert np.abs(maps - np.exp(truth(logarithms)[0])).max() < 1e-6


def test_scores_of_a_convolution_are_scores_without_a_doubt():
    for nodes in (
        [("Identity", "s", "y", {})],
        [("Mul", "s half", "t", {}), ("Add", "t s", "y", {})],
        [("MaxPool", "s", "y", {"kernel_shape": [1, 1]})],
    ):
        result = model(network(*nodes)).contract.result
        assert not result.doubt
        assert "sigmoid" in result.rule


@pytest.mark.parametrize("last", ["Relu", "Tanh", "Softplus", "Abs"])
def test_what_the_graph_does_not_prove_is_said_and_can_be_chosen(last):
    proto = network((last, "s", "y", {}))
    assert "--activation none" in model(proto).contract.result.doubt
    want = truth(proto)[0]
    assert np.array_equal(segmented(proto), want > 0)
    chosen = model(proto, activation="none").contract.result
    assert not chosen.doubt
    assert np.array_equal(segmented(proto, activation="none"), want > 0.5)


def test_softmax_of_several_channels_is_not_taken_twice_and_sigmoids_are_no_exclusive_classes():
    softmax = network(("Softmax", "s", "y", {"axis": 1}), channels=3, planes=3)
    assert np.abs(segmented(softmax, output="probabilities") - truth(softmax)).max() < 1e-6
    assert not model(softmax).contract.result.doubt
    sigmoids = network(("Sigmoid", "s", "y", {}), channels=3, planes=3)
    assert np.abs(segmented(sigmoids, output="probabilities") - truth(sigmoids)).max() < 1e-6
    assert "--output multilabel" in model(sigmoids).contract.result.doubt
    assert np.array_equal(segmented(sigmoids), truth(sigmoids).argmax(0))


@pytest.mark.parametrize(("plan", "tile"), PLANS)
def test_multilabel_gives_a_plane_of_0_and_1_for_each_channel(plan, tile):
    sigmoids = network(("Sigmoid", "s", "y", {}), channels=3, planes=3)
    planes = segmented(sigmoids, plan=plan, tile=tile, output="multilabel", threshold=0.6)
    assert planes.dtype == np.uint8
    assert np.array_equal(planes, truth(sigmoids) > 0.6)
    scores = network(("Identity", "s", "y", {}), channels=3, planes=3)
    planes = segmented(scores, plan=plan, tile=tile, output="multilabel")
    assert np.array_equal(planes, truth(scores) > 0)


def test_choices_that_make_no_sense_are_refused():
    one, three = network(("Identity", "s", "y", {})), network(("Identity", "s", "y", {}), channels=3, planes=3)
    above = ("Exp", "s", "t", {}), ("Add", "t one", "u", {}), ("Add", "u one", "y", {})
    beyond = network(*above)
    for proto, options, message in (
        (three, {"threshold": 0.5}, "--output multilabel"),
        (one, {"activation": "softmax"}, "use sigmoid or none"),
        (one, {"threshold": 1.5}, "between 0 and 1"),
        (one, {"output": "raw", "activation": "none"}, "leave --activation out"),
        (one, {"output": "probabilities", "threshold": 0.5}, "Leave it out"),
        (beyond, {"output": "probabilities", "activation": "none"}, "no probability"),
    ):
        with pytest.raises(OptionError, match=message):
            model(proto, **options)


@pytest.mark.parametrize("map_dtype", ["float32", "float16", "uint8"])
def test_values_outside_0_and_1_are_refused_as_probabilities_with_pixel_and_value(map_dtype):
    proto = network(("Abs", "s", "y", {}))
    want = truth(proto)[0]
    y, x = np.argwhere(want > 1.01)[0]
    with pytest.raises(EngineError, match=rf"row {y}, column {x} is {str(want[y, x])[:5]}.*not a probability"):
        segmented(proto, output="probabilities", activation="none", map_dtype=map_dtype)


@pytest.mark.parametrize(("plan", "tile"), PLANS)
def test_scores_that_are_not_numbers_are_counted_and_labelled_0(plan, tile):
    image = IMAGE.astype(np.float32)
    image[40, 30] = np.nan
    for channels in (1, 3):
        proto = network(("Identity", "s", "y", {}), channels=channels, planes=channels)
        want = truth(proto, image)
        sink = ArraySink()
        summary = Session(model(proto, image)).segment(ArraySource(image), sink, plan=plan, tile=tile)
        missing = np.isnan(want).any(0)
        labels = want.argmax(0) if channels > 1 else want[0] > 0
        assert summary.nan.pixels == missing.sum() == 9
        assert missing[summary.nan.first]
        assert sink.result.dtype == np.uint8
        assert np.array_equal(sink.result, np.where(missing, 0, labels))


def test_not_a_number_stays_so_in_maps_and_is_refused_in_bytes():
    image = IMAGE.astype(np.float32)
    image[40, 30] = np.nan
    proto = PROBABILITIES["sigmoid"]
    want = truth(proto, image)
    for output in ("raw", "probabilities"):
        assert np.allclose(segmented(proto, image, output=output), want, equal_nan=True, atol=1e-6)
    with pytest.raises(EngineError, match="row 39, column 29 is nan"):
        segmented(proto, image, output="probabilities", map_dtype="uint8")


def test_samples_of_8_bits_need_no_look_at_scores():
    result = model(network(("Identity", "s", "y", {}), channels=3, planes=3)).contract.result
    assert result.nan_label is None
    assert not result.stored


def test_raw_maps_of_float16_are_refused_where_they_overflow():
    proto = network(("Exp", "s", "t", {}), ("Exp", "t", "u", {}), ("Exp", "u", "y", {}))
    with pytest.raises(EngineError, match="which float16 cannot hold; use --map-dtype float32"):
        segmented(proto, output="raw", map_dtype="float16")


def test_the_command_line_says_the_rule_the_doubt_and_the_pixels_that_are_not_numbers(tmp_path):
    (tmp_path / "m.onnx").write_bytes(network(("Relu", "s", "y", {})))
    image = IMAGE.astype(np.float32)
    image[40, 30] = np.nan
    np.save(tmp_path / "i.npy", image)
    arguments = tmp_path / "m.onnx", tmp_path / "i.npy", "-o", tmp_path / "o.npy", "--no-progress"
    done = exactile("run", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["nan"]["pixels"] == 9
    assert "sigmoid" in told["rule"]
    assert "--activation none" in done.stderr
    assert "not a number (NaN) at 9 pixels" in done.stderr
    chosen = exactile("run", *arguments, "--overwrite", "--activation", "none", "--threshold", "0.25")
    assert chosen.returncode == 0, chosen.stderr
    assert "--activation none" not in chosen.stderr
    # Here nothing is divided by 255 as ``truth`` does.
    want = truth((tmp_path / "m.onnx").read_bytes(), image * 255)[0]
    assert np.array_equal(np.load(tmp_path / "o.npy"), np.nan_to_num(want) > 0.25)
    inspected = json.loads(exactile("inspect", tmp_path / "m.onnx", "--json").stdout)
    assert "--activation none" in inspected["labels"]["doubt"]


def test_a_bundle_keeps_threshold_rule_and_planes(tmp_path):
    (tmp_path / "m.onnx").write_bytes(network(("Sigmoid", "s", "y", {}), channels=3, planes=3))
    bundle = tmp_path / "m.bundle"
    asked = "--output", "multilabel", "--threshold", "0.4", "--scale", "255", "--classes", "a,b,c"
    done = exactile("convert", tmp_path / "m.onnx", "-o", bundle, *asked)
    assert done.returncode == 0, done.stderr
    contract = json.loads((bundle / "contract.json").read_text())
    assert contract["version"] == 4
    assert contract["result"]["threshold"] == 0.4
    assert "0.4" in contract["result"]["rule"]
    np.save(tmp_path / "i.npy", IMAGE)
    run_json(bundle, tmp_path / "i.npy", "-o", tmp_path / "o.npy")
    assert np.array_equal(np.load(tmp_path / "o.npy"), truth((tmp_path / "m.onnx").read_bytes()) > 0.4)
    assert exactile("info", bundle, "--test").returncode == 0
    refused = exactile("run", bundle, tmp_path / "i.npy", "-o", tmp_path / "p.npy", "--threshold", "0.5")
    assert "--threshold: fixed in the bundle" in refused.stderr


@pytest.mark.parametrize(
    "output", ["labels", *(pytest.param(one, marks=pytest.mark.slow) for one in ("probabilities", "multilabel"))]
)
def test_a_conversion_that_writes_something_else_than_the_output_means_is_refused(tmp_path, monkeypatch, output):
    """The two bugs planted: a threshold of scores for probabilities, and a second sigmoid."""
    from exactile_converters import convert as conversion
    from exactile_converters.graphs.result_out import ResultTail

    (tmp_path / "m.onnx").write_bytes(PROBABILITIES["sigmoid, resized"])
    conversion.convert(tmp_path / "m.onnx", tmp_path / "right", output=output)

    def above(tail, _meaning, _threshold):
        return tail._build.add("Greater", tail._value, tail._build.constant(np.float32(0)))

    monkeypatch.setattr(ResultTail, "_above", above)
    monkeypatch.setattr(ResultTail, "_activated", lambda tail, _meaning: tail._build.add("Sigmoid", tail._value))
    with pytest.raises(ModelError, match=f"the {output} that would be written are not those"):
        conversion.convert(tmp_path / "m.onnx", tmp_path / "wrong", output=output)
    assert not (tmp_path / "wrong").exists()
