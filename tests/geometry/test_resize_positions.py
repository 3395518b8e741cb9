"""Resize to the last float: positions that engines round, scales that only look whole, and what old opsets meant."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from exactile.geometry import Span
from exactile_converters.geometry.reach import Interpolation
from exactile_converters.geometry.single_precision import picks_steadily
from exactile_converters.prepare.from_onnx import prepare_network
from tests.converters.test_graph_io import model_of, weights
from tests.runs.test_exactness import segment

COORDINATES = ["asymmetric", "half_pixel", "tf_half_pixel_for_nn"]
ROUNDINGS = ["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"]


def traced(model: bytes):
    return prepare_network(onnx.load_from_string(model), name="net").trace()


def resized(scale: float, **options) -> bytes:
    nodes = [
        ("Conv", ["image", "w"], ["a"], {"pads": [1] * 4}),
        ("Resize", ["a", "", "s"], ["b"], options),
        ("Conv", ["b", "v"], ["out"], {"pads": [1] * 4}),
    ]
    constants = {"w": weights(4, 3, 3, 3), "v": weights(2, 4, 3, 3), "s": np.array([1, 1, scale, scale], np.float32)}
    return model_of(nodes, constants)


def picked(factor: int, coordinates: str, rounding: str, outputs: int) -> np.ndarray:
    """What ONNX Runtime picks for each output when reducing by ``factor``."""
    node = helper.make_node(
        "Resize",
        ["x", "", "s"],
        ["y"],
        mode="nearest",
        coordinate_transformation_mode=coordinates,
        nearest_mode=rounding,
    )
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 1, "w"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 1, "v"])],
        [numpy_helper.from_array(np.array([1, 1, 1, 1 / factor], np.float32), "s")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    ramp = np.arange(outputs * factor, dtype=np.float32)[None, None, None]
    (found,) = ort.InferenceSession(model.SerializeToString()).run(None, {"x": ramp})
    return found.ravel().astype(np.int64)


@pytest.mark.parametrize("factor", [2, 3, 5, 6, 7, 9, 10, 13, 14, 15])
@pytest.mark.parametrize("coordinates", COORDINATES)
def test_what_is_called_steady_is_what_onnx_runtime_picks_everywhere(factor, coordinates):
    outputs = 100_000
    for rounding in ROUNDINGS:
        reach = Interpolation(scale=Fraction(1, factor), coordinates=coordinates, kind="nearest", rounding=rounding)
        phases = picked(factor, coordinates, rounding, outputs) - np.arange(outputs) * factor
        inside = phases[1:-1]  # clamped at the image's edges
        assert picks_steadily(reach) == (inside == inside[0]).all()
        if picks_steadily(reach):
            assert reach.needed(Span(0, 1)).start == inside[0]


@pytest.mark.parametrize("factor", [7, 13, 14, 15])
def test_a_reduction_that_picks_now_this_pixel_now_that_picks_by_the_place_in_the_image(factor):
    """As PyTorch exports it. Tiles at other places are told where they lie, and pick what one pass picks."""
    options = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    model = resized(1 / factor, **options)
    geometry = traced(model).geometry
    assert geometry.placed
    image = np.random.default_rng(0).integers(0, 8, (factor * 97, factor * 61, 3), dtype=np.uint8)
    (whole,) = ort.InferenceSession(model).run(None, {"image": image.astype(np.float32).transpose(2, 0, 1)[None]})
    side = geometry.y.accepted_size(8 * factor)
    raw, summary, _ = segment(model, image, tile=(side, side))
    assert summary.tiles > 9
    assert np.array_equal(raw, whole[0])


@pytest.mark.parametrize("factor", [2, 3, 4, 5, 8, 10])
def test_a_steady_reduction_tiles_bit_for_bit(factor):
    options = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    model = resized(1 / factor, **options)
    geometry = traced(model).geometry
    assert geometry.y.stride == factor
    image = np.random.default_rng(0).integers(0, 8, (factor * 97, factor * 61, 3), dtype=np.uint8)
    (whole,) = ort.InferenceSession(model).run(None, {"image": image.astype(np.float32).transpose(2, 0, 1)[None]})
    side = geometry.y.accepted_size(8 * factor)
    raw, summary, _ = segment(model, image, tile=(side, side))
    assert summary.tiles > 9
    assert np.array_equal(raw, whole[0])


@pytest.mark.parametrize(
    ("scale", "factor", "accepted"), [(0.5, 2, True), (0.50001, 2, False), (1 / 3, 3, True), (0.3334, 3, False)]
)
def test_a_scale_that_only_gives_the_sizes_of_a_whole_factor_is_an_obstacle(scale, factor, accepted):
    found = traced(resized(scale, mode="linear"))
    assert (found.obstacles == ()) == accepted
    if not accepted:
        assert f"its output size that of 1/{factor}" in found.obstacles[0].reason


def old(op: str, opset: int, mode: str, scale: float) -> bytes:
    """A convolution, and Upsample or Resize as they were, behind it."""
    nodes = [helper.make_node("Conv", ["image", "w"], ["a"], pads=[1] * 4)]
    constants = [numpy_helper.from_array(weights(2, 1, 3, 3), "w")]
    if opset < 9:
        nodes.append(helper.make_node(op, ["a"], ["out"], mode=mode, scales=[1.0, 1.0, scale, scale]))
    else:
        constants.append(numpy_helper.from_array(np.array([1, 1, scale, scale], np.float32), "s"))
        nodes.append(helper.make_node(op, ["a", "s"], ["out"], mode=mode))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, "h", "w_"])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 2, "oh", "ow"])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=5).SerializeToString()


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize(
    ("op", "opset", "scale"),
    [
        *[("Upsample", 7, 2), ("Upsample", 9, 2), ("Upsample", 9, 3), ("Upsample", 9, 4)],
        *[("Resize", 10, 2), ("Resize", 10, 4), ("Resize", 10, 1 / 2), ("Resize", 10, 1 / 4)],
    ],
)
def test_old_opsets_give_what_the_model_as_it_is_gives(op, opset, scale, mode):
    """ONNX Runtime on the original file is the truth; ours brings it to a newer opset first."""
    model = old(op, opset, mode, scale)
    factor = round(max(scale, 1 / scale))
    side = 24 * factor if scale < 1 else 40
    image = np.random.default_rng(0).integers(0, 8, (side, side + 4 * factor, 1), dtype=np.uint8)
    (whole,) = ort.InferenceSession(model).run(None, {"image": image.astype(np.float32).transpose(2, 0, 1)[None]})
    geometry = traced(model).geometry
    assert geometry is not None
    tile = (geometry.y.accepted_size(16 * (factor if scale < 1 else 1)),) * 2
    for plan, shape in (("whole", None), ("tile", tile), ("strip", None)):
        raw, _, _ = segment(model, image, plan=plan, tile=shape)
        assert np.abs(raw - whole[0]).max() <= 1e-5 * np.abs(whole).max()
