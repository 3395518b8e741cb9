"""Where the output's first pixel lies in the image: on paper, by ramps, and with every border."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from exactile_converters.prepare.from_onnx import prepare_network
from tests.runs.test_exactness import image_for, segment
from tests.support.nets import NETS, onnx_bytes
from tests.support.oracle import whole_pass

ort.set_default_logger_severity(3)


class Chain:
    """A graph of one operator after the other, one channel, averaging weights."""

    def __init__(self) -> None:
        self.nodes, self.constants, self.last = [], [], "image"

    def add(self, op: str, *constants: np.ndarray, **attributes) -> Chain:
        names = [f"c{len(self.constants) + i}" for i in range(len(constants))]
        arrays = zip(names, constants, strict=True)
        self.constants += [numpy_helper.from_array(array, name) for name, array in arrays]
        out = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, [self.last, *names], [out], name=f"n{len(self.nodes)}", **attributes))
        self.last = out
        return self

    def conv(self, kernel: int, before: int = 0, after: int = 0, stride: int = 1, dilation: int = 1) -> Chain:
        weight = np.full((1, 1, kernel, kernel), 1 / kernel**2, np.float32)
        pads = [before, before, after, after]
        return self.add("Conv", weight, pads=pads, strides=[stride] * 2, dilations=[dilation] * 2)

    def transposed(self, kernel: int, before: int = 0, after: int = 0, extra: int = 0) -> Chain:
        weight = np.full((1, 1, kernel, kernel), 4 / kernel**2, np.float32)
        pads = [before, before, after, after]
        return self.add("ConvTranspose", weight, pads=pads, strides=[2, 2], output_padding=[extra] * 2)

    def crop(self, before: int, after: int = 0) -> Chain:
        end = -after if after else np.iinfo(np.int64).max
        return self.add("Slice", *(np.array(v, np.int64) for v in ([before] * 2, [end] * 2, [2, 3])))

    def pad(self, before: int, after: int = 0) -> Chain:
        return self.add("Pad", np.array([0, 0, before, before, 0, 0, after, after], np.int64))

    def pool(self, size: int = 2, stride: int = 2) -> Chain:
        return self.add("AveragePool", kernel_shape=[size] * 2, strides=[stride] * 2)

    def model(self) -> onnx.ModelProto:
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, "h", "w"])
        result = helper.make_tensor_value_info(self.last, TensorProto.FLOAT, [1, 1, "i", "j"])
        graph = helper.make_graph(self.nodes, "g", [image], [result], self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def geometry_of(model: onnx.ModelProto):
    traced = prepare_network(model, name="chain").trace()
    assert traced.obstacles == ()
    return traced.geometry


@pytest.mark.parametrize("name", NETS)
def test_reference_networks_lie_at_0_and_the_valid_one_at_what_it_loses(name):
    geometry = geometry_of(onnx.load_from_string(onnx_bytes(name)))
    assert geometry.y.origin == geometry.x.origin == (4 if name == "valid" else 0)


PAPER = {
    "SAME 3x3": (Chain().conv(3, 1, 1), 0),
    "SAME 3x3, stride 2, both sides": (Chain().conv(3, 1, 1, stride=2), 0),
    "SAME 3x3, stride 2, as TensorFlow pads": (Chain().conv(3, 0, 1, stride=2), 0),
    "padding as an operator of its own": (Chain().pad(3, 3).conv(7, stride=2).pad(1, 1).conv(3, stride=2), 0),
    "SAME 7x7, stride 2, thrice": (Chain().conv(7, 3, 3, 2).conv(7, 3, 3, 2).conv(7, 3, 3, 2), 0),
    "SAME 4x4, six times": (Chain().conv(4, 1, 2).conv(4, 1, 2).conv(4, 1, 2).conv(4, 1, 2), 0),
    "down and up again": (Chain().conv(3, 1, 1, 2).transposed(3, 1, 1, 1), 0),
    "up with a crop at the end": (Chain().pool().transposed(3).crop(0, 1), 0),
    "up with a crop at the beginning": (Chain().pool().transposed(3).crop(1), 0),
    "valid 3x3": (Chain().conv(3), 1),
    "valid, dilated": (Chain().conv(3, dilation=4), 4),
    "two valid 2x2": (Chain().conv(2).conv(2), 1),
    "valid behind a pooling": (Chain().conv(3).pool().conv(3), 3),
    "a crop of 3 and 2": (Chain().crop(3, 2), 3),
    "a crop behind a SAME convolution of stride 2": (Chain().conv(3, 1, 1, stride=2).crop(4, 2), 8),
    "a crop before one": (Chain().crop(4, 2).conv(3, 1, 1, stride=2), 4),
    "padded outward": (Chain().conv(3, 3, 3), -2),
    "padded outward, more before": (Chain().pad(5, 2), -5),
    "a transposed convolution that crops": (Chain().pool().transposed(4, 3, 3), 2),
    "overlapping pooling": (Chain().pool(4, 2), 1),
    "half a pixel": (Chain().transposed(2).crop(1, 1), Fraction(1, 2)),
}


@pytest.mark.parametrize("case", PAPER)
def test_offset_on_paper(case):
    chain, expected = PAPER[case]
    assert geometry_of(chain.model()).y.origin == expected


def test_of_shifted_copies_the_middle_one_counts():
    """A sum of three neighbours, as crops of the image, lies where a valid convolution of three lies."""
    chain = Chain()
    crops = []
    for before, after in ((2, 0), (1, 1), (0, 2)):
        chain.last = "image"
        crops.append(chain.crop(before, after).last)
    chain.nodes.append(helper.make_node("Sum", crops, ["sum"], name="sum"))
    chain.last = "sum"
    assert geometry_of(chain.model()).y.origin == 1


@st.composite
def symmetric_chains(draw):
    """Odd convolutions of any padding, crops, paddings and poolings: all tell exactly where they look."""
    chain, few = Chain(), st.integers(0, 4)
    for _ in range(draw(st.integers(1, 5))):
        match draw(st.sampled_from(["conv", "crop", "pad", "pool"])):
            case "conv":
                chain.conv(draw(st.sampled_from([3, 5])), draw(few), draw(few), dilation=draw(st.integers(1, 2)))
            case "crop":
                chain.crop(draw(few), draw(few))
            case "pad":
                chain.pad(draw(few), draw(few))
            case "pool":
                chain.pool()
    return chain


@given(symmetric_chains())
@settings(max_examples=40, deadline=None)
def test_offset_is_where_a_ramp_says(chain):
    """Averages of a ramp tell the middle of what an output pixel looks at."""
    model = chain.model()
    axis = geometry_of(model).y
    size = axis.accepted_size(400)
    ramp = np.broadcast_to((np.arange(size) + 0.5)[:, None], (size, size)).astype(np.float32)
    (output,) = ort.InferenceSession(model.SerializeToString()).run(None, {"image": ramp[None, None]})
    middle = output.shape[2] // 2
    if axis.size_constant:
        assert output[0, 0, middle, middle] == pytest.approx(float(axis.origin + (middle + 0.5) / axis.scale), abs=1e-2)
    else:
        assert axis.origin == 0


@pytest.mark.parametrize("border", ["model", "reflect", "edge", "constant"])
@pytest.mark.parametrize(
    "case",
    ["valid", "a crop of 3 and 2", "a crop behind a SAME convolution of stride 2", "padded outward", "half a pixel"],
)
def test_plans_of_shifted_networks_are_exact(case, border):
    model = onnx_bytes("valid", "integer") if case == "valid" else PAPER[case][0].model().SerializeToString()
    axis = geometry_of(onnx.load_from_string(model)).y
    tile = axis.accepted_size(24)
    image = image_for("valid", tile + 13, 2 * tile + 9, largest=7)
    raw, summary, geometry = segment(model, image, tile=(tile, tile), border=border)
    assert summary.tiles > 1
    reference = whole_pass(model, image, geometry, border)
    assert raw.shape == reference.shape
    assert np.allclose(raw, reference, atol=1e-5)
    if border == "edge" and axis.scale == 1:
        assert raw.shape[1:] == image.shape[:2]
