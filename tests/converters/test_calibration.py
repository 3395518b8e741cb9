"""Forms of int8 are compared on what they were not calibrated on, and the best one is taken."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from exactile.errors import ModelError
from exactile.sources.array import ArraySource
from exactile_converters.graphs.io import Normalization
from exactile_converters.networks.network import Network
from exactile_converters.prepare.from_onnx import prepare_network
from exactile_converters.reduced_precision import calibration, calibration_crops
from exactile_converters.reduced_precision.calibration import Trial, choose
from exactile_converters.reduced_precision.calibration_crops import crops_of
from exactile_converters.reduced_precision.quantize import METHODS, Method, layers_in_float
from tests.support.optimized_models import N, conv, network, random

NORMALIZATION = Normalization(scale=(255.0,))


def tiny() -> Network:
    """Four convolutions, of which the inner two can always be quantised."""
    nodes = [
        N("Relu", ["a"], ["r"]),
        conv("r", "c", "k0"),
        N("MaxPool", ["c"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        N("ConvTranspose", ["p", "t"], ["u"], strides=[2, 2]),
        N("Concat", ["u", "c"], ["j"], axis=1),
        conv("j", "b", "k1"),
    ]
    constants = [random("k0", 4, 4, 3, 3), random("t", 4, 4, 2, 2), random("k1", 4, 8, 3, 3)]
    return prepare_network(network(nodes, constants), name="tiny")


def picture(seed: int, size: tuple[int, int]) -> np.ndarray:
    """Noise: four pixels tell where they are from."""
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def pictures(count: int, size: tuple[int, int] = (260, 300)) -> list[ArraySource]:
    return [ArraySource(picture(seed, size)) for seed in range(count)]


@pytest.fixture(scope="module", autouse=True)
def few_crops():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration_crops, "MOST_CROPS", 4)
        yield


@pytest.fixture(scope="module")
def crops():
    return crops_of(pictures(4), tiny(), NORMALIZATION)


@pytest.fixture(scope="module")
def chosen(crops):
    steps = []
    found = choose(tiny(), NORMALIZATION, crops, progress=lambda done, of: steps.append((done, of)))
    return found, steps


def labels(model: onnx.ModelProto, crop) -> np.ndarray:
    """Of plain ONNX Runtime."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    pixels = (crop.samples.astype(np.float32) / 255).transpose(2, 0, 1)[None]
    return session.run(None, {"x": np.ascontiguousarray(pixels)})[0][0].argmax(0)


def test_the_best_form_is_taken(chosen, crops):
    found, _ = chosen
    least = min(trial.error for trial in found.tried)
    assert least <= found.trial.error <= max(1.1 * least, least + 1e-4)
    assert found.trial in found.tried
    full, int8 = (ir.to_proto(one.model) for one in (tiny(), found.network))
    pairs = [(labels(full, crop), labels(int8, crop)) for crop in crops.held_out]
    different = sum(np.count_nonzero(one != other) for one, other in pairs)
    accuracy = found.trial.accuracy
    assert (different, sum(one.size for one, _ in pairs)) == (accuracy.different_labels, accuracy.pixels)
    assert 0 < different < 0.1 * accuracy.pixels
    for label, iou in enumerate(accuracy.iou):
        both = sum(np.count_nonzero((one == label) & (other == label)) for one, other in pairs)
        either = sum(np.count_nonzero((one == label) | (other == label)) for one, other in pairs)
        assert iou == pytest.approx(both / either, abs=1e-6)


def test_all_methods_are_tried_and_layers_for_the_best(chosen):
    found, steps = chosen
    assert {trial.method for trial in found.tried} == set(METHODS)
    best = min(found.tried, key=lambda trial: trial.error).method
    assert {trial.float_layers for trial in found.tried if trial.method == best} == {
        "none",
        "first",
        "last",
        "first and last",
    }
    assert all(trial.time is not None and trial.time > 0 for trial in found.tried)
    done, of = zip(*steps, strict=True)
    assert list(done) == sorted(done)
    assert done[-1] == of[-1]


def test_among_forms_that_are_hardly_worse_the_fastest_is_taken():
    def trial(error: float, time: float) -> Trial:
        return Trial(method=Method("minmax"), float_layers="none", accuracy=None, error=error, time=time)

    slow, quick, wrong = trial(0.01, 0.9), trial(0.0109, 0.4), trial(0.02, 0.1)
    assert calibration.best_of([slow, quick, wrong]) is quick
    assert calibration.best_of([slow, wrong]) is slow


def test_one_image_is_cut_and_of_several_whole_ones_are_held_out():
    for sources in (pictures(1, (300, 600)), pictures(1, (520, 300)), pictures(2), pictures(10)):
        found = crops_of(sources, tiny(), NORMALIZATION)
        assert found.apart
        assert found.calibration
        assert found.held_out
        for one in found.calibration:
            for other in found.held_out:
                assert not overlap(place(sources, one), place(sources, other))


def place(sources: list[ArraySource], crop) -> tuple[int, int, int]:
    """Image, row and column of a crop: its first pixels are looked up in the noise."""
    wanted = crop.samples[0, :4].tobytes()
    for number in range(len(sources)):
        image = picture(number, (sources[number].height, sources[number].width))
        for y, row in enumerate(image):
            at = row.tobytes().find(wanted)
            if at >= 0:
                return number, y, at // 3
    raise AssertionError("a crop that is from none of the images")


def overlap(one: tuple[int, int, int], other: tuple[int, int, int]) -> bool:
    return one[0] == other[0] and abs(one[1] - other[1]) < 256 and abs(one[2] - other[2]) < 256


def test_an_image_without_room_for_two_crops_serves_for_both():
    found = crops_of(pictures(1, (300, 300)), tiny(), NORMALIZATION)
    assert not found.apart
    assert [crop.samples.tobytes() for crop in found.calibration] == [crop.samples.tobytes() for crop in found.held_out]


def test_outer_layers_stay_in_floating_point_with_what_lies_outside_of_them():
    net = tiny()
    named = {node.name: node.op_type for node in net.model.graph}
    first, last = (layers_in_float(net, which) for which in ("first", "last"))
    assert [named[name] for name in first] == ["Conv"]
    assert [named[name] for name in last] == ["Conv"]
    assert first != last
    assert sorted(layers_in_float(net, "first and last")) == sorted(first + last)
    assert layers_in_float(net, "none") == []


def test_a_network_without_layers_to_quantise_is_refused(crops):
    nodes = [N("Relu", ["x"], ["y"])]
    graph = onnx.helper.make_graph(
        nodes,
        "g",
        [onnx.helper.make_tensor_value_info(name, 1, ["n", 3, "h", "w"]) for name in ("x",)],
        [onnx.helper.make_tensor_value_info(name, 1, ["n", 3, "h", "w"]) for name in ("y",)],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(ModelError, match="no convolution that could be computed in int8"):
        choose(prepare_network(model, name="relu"), NORMALIZATION, crops)
