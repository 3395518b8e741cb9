"""Networks as other frameworks write them: their axes, their last layers, their fixed sizes."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from exactile.errors import ChannelError, NotTileableError, OptionError
from exactile_converters.deploy import Normalization, deploy
from exactile_converters.prepare.from_onnx import prepare_network
from exactile_converters.torch_export import export_onnx
from tests.runs.test_exactness import image_for, segment
from tests.support.nets import NETS, torch_net
from tests.support.oracle import whole_pass

RANDOM = np.random.default_rng(3)


def constant(name: str, array) -> onnx.TensorProto:
    return onnx.numpy_helper.from_array(np.asarray(array), name)


def weights(*shape: int) -> np.ndarray:
    return RANDOM.integers(-2, 3, shape).astype(np.float32)


def model_of(
    nodes, constants, *, image=("n", 3, "h", "w"), output=("n", "c", "oh", "ow"), kind=TensorProto.FLOAT, opset=17
):
    graph = helper.make_graph(
        [helper.make_node(op, inputs, outputs, **attributes) for op, inputs, outputs, attributes in nodes],
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, image)],
        [helper.make_tensor_value_info("out", kind, output)],
        [constant(name, array) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def picture(height=61, width=50, channels=3) -> np.ndarray:
    return RANDOM.integers(0, 8, (height, width, channels), dtype=np.uint8)


@cache
def channels_last() -> bytes:
    """As TensorFlow exports: NHWC outside, a transpose in and out of each convolution, softmax over the last axis."""
    nodes = [
        ("Transpose", ["image"], ["nchw"], {"perm": [0, 3, 1, 2]}),
        ("Conv", ["nchw", "w0"], ["conv"], {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
        ("Relu", ["conv"], ["relu"], {}),
        ("ConvTranspose", ["relu", "w1"], ["up"], {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
        ("Transpose", ["up"], ["nhwc"], {"perm": [0, 2, 3, 1]}),
        ("Softmax", ["nhwc"], ["out"], {"axis": -1}),
    ]
    constants = {"w0": weights(8, 3, 3, 3), "w1": weights(8, 4, 3, 3)}
    return model_of(nodes, constants, image=("n", "h", "w", 3), output=("n", "h", "w", 4))


def test_a_channels_last_network_gives_the_labels_of_a_whole_pass():
    image = picture(60, 50)
    labels, summary, _ = segment(channels_last(), image, output="labels", tile=(16, 18))
    session = ort.InferenceSession(channels_last())
    (whole,) = session.run(None, {"image": image[None].astype(np.float32)})
    assert summary.tiles > 4
    assert np.array_equal(labels, whole[0].argmax(-1))


def test_a_channels_last_network_gives_channels_first_maps_and_no_second_softmax():
    image = picture(60, 50)
    session = ort.InferenceSession(channels_last())
    (whole,) = session.run(None, {"image": image[None].astype(np.float32)})
    for output in ("raw", "probabilities"):
        result, _, _ = segment(channels_last(), image, output=output, tile=(16, 18))
        assert np.allclose(result, whole[0].transpose(2, 0, 1), atol=1e-6)


def head(*last: tuple, classes: int, kind=TensorProto.FLOAT, output=("n", "c", "oh", "ow"), **constants) -> bytes:
    nodes = [("Conv", ["image", "w"], ["scores"], {"pads": [1] * 4}), *last]
    return model_of(nodes, {"w": weights(classes, 3, 3, 3), **constants}, kind=kind, output=output)


def whole_of(model: bytes, image: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model)
    return session.run(None, {"image": image.transpose(2, 0, 1)[None].astype(np.float32)})[0][0]


def test_one_channel_of_scores_is_a_label_above_0():
    image, model = picture(), head(("Identity", ["scores"], ["out"], {}), classes=1)
    labels, _, _ = segment(model, image, output="labels", tile=(12, 12))
    assert labels.dtype == np.uint8
    assert np.array_equal(labels, whole_of(model, image)[0] > 0)


def test_one_channel_of_probability_is_a_label_above_one_half():
    image, model = picture(), head(("Sigmoid", ["scores"], ["out"], {}), classes=1)
    labels, _, _ = segment(model, image, output="labels", tile=(12, 12))
    assert np.array_equal(labels, whole_of(model, image)[0] > 0.5)
    probabilities, _, _ = segment(model, image, output="probabilities", tile=(12, 12))
    assert np.array_equal(probabilities, whole_of(model, image))


def test_one_channel_of_scores_becomes_a_probability_by_a_sigmoid():
    image, model = picture(), head(("Identity", ["scores"], ["out"], {}), classes=1)
    probabilities, _, _ = segment(model, image, output="probabilities", tile=(12, 12))
    assert np.allclose(probabilities, 1 / (1 + np.exp(-whole_of(model, image).astype(np.float64))), atol=1e-6)


@pytest.mark.parametrize("keepdims", [0, 1])
def test_a_network_that_ends_in_labels_keeps_them(keepdims):
    output = ("n", 1, "oh", "ow") if keepdims else ("n", "oh", "ow")
    last = ("ArgMax", ["scores"], ["out"], {"axis": 1, "keepdims": keepdims})
    model, image = head(last, classes=5, kind=TensorProto.INT64, output=output), picture()
    labels, _, _ = segment(model, image, output="labels", tile=(12, 12))
    assert labels.dtype == np.uint8
    assert np.array_equal(labels, whole_of(model, image).reshape(image.shape[:2]))
    with pytest.raises(OptionError, match="labels"):
        segment(model, image, output="probabilities")


def test_more_than_256_classes_take_two_bytes():
    image, model = picture(20, 21), head(("Identity", ["scores"], ["out"], {}), classes=300)
    labels, _, _ = segment(model, image, output="labels", tile=(12, 12))
    assert labels.dtype == np.uint16
    assert np.array_equal(labels, whole_of(model, image).argmax(0))


def test_max_unpooling_tiles_exactly():
    """SegNet's indices are positions in the tile, and their windows do not overlap."""
    nodes = [
        ("Conv", ["image", "w0"], ["a"], {"pads": [1] * 4}),
        ("MaxPool", ["a"], ["pooled", "where"], {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("Conv", ["pooled", "w1"], ["b"], {"pads": [1] * 4}),
        ("MaxUnpool", ["b", "where"], ["c"], {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("Conv", ["c", "w2"], ["out"], {"pads": [1] * 4}),
    ]
    model = model_of(nodes, {"w0": weights(8, 3, 3, 3), "w1": weights(8, 8, 3, 3), "w2": weights(4, 8, 3, 3)})
    image = picture(60, 50)
    raw, summary, _ = segment(model, image, tile=(20, 22))
    assert summary.tiles > 4
    assert np.array_equal(raw, whole_of(model, image))


@pytest.mark.parametrize("name", ["unet_d2", "unet_bilinear_skip_d2", "resnet_unet"])
def test_a_model_exported_at_one_fixed_size_runs_at_every_size(name):
    buffer = io.BytesIO()
    export_onnx(torch_net(name), buffer, NETS[name].channels, size=(64, 64), dynamic=False)
    fixed = buffer.getvalue()
    # The one exported at a fixed size resizes by a factor: it does not know that this was the size of another map.
    image = image_for(name, *((96, 132) if "skip" in name else (97, 130)))
    raw, _, geometry = segment(fixed, image, plan="whole", normalization=Normalization(scale=(255.0,)))
    free = io.BytesIO()
    export_onnx(torch_net(name), free, NETS[name].channels)
    assert np.abs(raw - whole_pass(free.getvalue(), image, geometry, scale=255.0)).max() < 1e-4


def test_old_opsets_are_brought_up():
    nodes = [("Conv", ["image", "w"], ["scores"], {"pads": [1] * 4}), ("Softmax", ["scores"], ["out"], {"axis": 3})]
    softmax_over_x = model_of(nodes, {"w": weights(3, 3, 3, 3)}, opset=9)
    assert prepare_network(onnx.load_from_string(softmax_over_x), name="old").trace().obstacles
    nodes[1] = ("Relu", ["scores"], ["out"], {})
    old = model_of(nodes, {"w": weights(3, 3, 3, 3)}, opset=9)
    image = picture()
    raw, _, _ = segment(old, image, tile=(12, 12))
    assert np.array_equal(raw, whole_of(old, image))


OBSTACLES = {
    "global pooling": [("GlobalAveragePool", ["scores"], ["out"], {})],
    "softmax over space": [("Softmax", ["scores"], ["out"], {"axis": 2})],
    "instance normalisation": [("InstanceNormalization", ["scores", "one", "zero"], ["out"], {})],
    "reduction over space": [("ReduceMean", ["scores"], ["out"], {"axes": [2, 3]})],
    "position encoding": [("Add", ["scores", "positions"], ["out"], {})],
    "fixed crop": [("Slice", ["scores", "starts", "ends", "axes"], ["out"], {})],
    "flip": [("Slice", ["scores", "minus", "first", "axes", "minus"], ["out"], {})],
    "resize to a size": [("Resize", ["scores", "", "", "sizes"], ["out"], {"mode": "linear"})],
}
CONSTANTS = {
    "one": np.ones(3, np.float32),
    "zero": np.zeros(3, np.float32),
    "positions": np.arange(64, dtype=np.float32).reshape(1, 1, 64, 1),
    "starts": np.array([0]),
    "ends": np.array([40]),
    "axes": np.array([2]),
    "minus": np.array([-1]),
    "first": np.array([-(2**62)]),
    "sizes": np.array([1, 3, 100, 100]),
}


@pytest.mark.parametrize("case", OBSTACLES)
def test_what_ties_pixels_to_the_whole_image_is_an_obstacle(case):
    """Named by node and operator, with a reason and a remedy; and nothing runs."""
    last = OBSTACLES[case]
    model = head(*last, classes=3, **CONSTANTS)
    traced = prepare_network(onnx.load_from_string(model), name=case).trace()
    assert traced.geometry is None
    assert [obstacle.op for obstacle in traced.obstacles] == [last[0][0]]
    assert all(obstacle.node and obstacle.reason and obstacle.remedy for obstacle in traced.obstacles)
    with pytest.raises(NotTileableError, match=last[0][0]):
        deploy(prepare_network(onnx.load_from_string(model), name=case), image_dtype="uint8")


def test_the_wrong_number_of_channels_names_both():
    with pytest.raises(ChannelError, match=r"2 channel.* 3"):
        segment(head(("Identity", ["scores"], ["out"], {}), classes=3), picture(channels=2))


@pytest.mark.parametrize("merge", ["Add", "Concat"])
def test_a_network_that_accepts_odd_sizes_only_tiles_at_odd_sizes(merge):
    """Its skip connection has n - 1 pixels, its way down and up (n - 1) // 2 * 2."""
    nodes = [
        ("Conv", ["image", "w0"], ["skip"], {}),
        ("MaxPool", ["skip"], ["pooled"], {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("ConvTranspose", ["pooled", "w1"], ["up"], {"strides": [2, 2]}),
        (merge, ["skip", "up"], ["out"], {"axis": 1} if merge == "Concat" else {}),
    ]
    model = model_of(nodes, {"w0": weights(4, 3, 2, 2), "w1": weights(4, 4, 2, 2)})
    image = picture(41, 50)
    raw, summary, geometry = segment(model, image, tile=(11, 13))
    assert (geometry.y.stride, geometry.y.remainder) == (2, 1)
    assert summary.tiles > 4
    assert summary.domain == (41, 51)
    assert np.array_equal(raw, whole_pass(model, image, geometry))
