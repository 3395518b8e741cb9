"""What TensorFlow, Keras and PaddlePaddle export: NHWC, Transpose around, opsets 9 to 17, free and fixed sizes."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from exactile_converters.prepare.from_onnx import load_network
from exactile_converters.verify import verify
from tests.runs.test_exactness import segment
from tests.support.folders import TESTS

HERE = TESTS / "exports"

# stride, and the reach of an aligned output box before and after: counted by hand on the layers of the scripts.
TILEABLE = {
    "unet_transpose": (4, 22, 22),
    "unet_nearest": (4, 22, 22),
    "unet_bilinear": (4, 26, 26),
    "valid": (2, 0, 16),
    "hardswish": (1, 4, 4),
    "modern": (2, 6, 6),  # TensorFlow writes a dilated convolution as blocks of two pixels
}
OBSTACLES = {"squeeze_and_excite": {"GlobalAveragePool", "ReduceMean"}, "dense_head": {"Reshape"}}
OBSTACLES["group_norm"] = {"ReduceMean", "InstanceNormalization"}

FILES = sorted(path.name for path in HERE.glob("*.onnx"))


def kind(name: str) -> str:
    return next(key for key in (*TILEABLE, *OBSTACLES) if key in name)


def fixed_side(name: str) -> int | None:
    shape = onnx.load(HERE / name).graph.input[0].type.tensor_type.shape.dim
    return next((dim.dim_value for dim in shape[1:] if dim.dim_value > 3), None)


def test_all_frameworks_are_here():
    assert {name.split("_")[0] for name in FILES} == {"keras", "tensorflow", "paddle"}
    assert {kind(name) for name in FILES} == {*TILEABLE, *OBSTACLES}
    opsets = {next(o.version for o in onnx.load(HERE / name).opset_import if not o.domain) for name in FILES}
    assert {9, 10, 11, 13, 17} <= opsets


@pytest.mark.parametrize("name", [name for name in FILES if kind(name) in OBSTACLES])
def test_obstacles_are_found(name):
    found = load_network(HERE / name).trace()
    assert found.geometry is None
    assert {obstacle.op for obstacle in found.obstacles} <= OBSTACLES[kind(name)]


@pytest.mark.parametrize("name", [name for name in FILES if kind(name) in TILEABLE])
def test_the_geometry_is_the_one_counted_by_hand_and_tiles_and_strips_are_the_whole(name):
    network = load_network(HERE / name)
    geometry = network.trace().geometry
    for axis in (geometry.y, geometry.x):
        assert (axis.stride, axis.before, axis.after) == TILEABLE[kind(name)]
    model = (HERE / name).read_bytes()
    side = fixed_side(name)
    size = (side, side) if side else (geometry.y.accepted_size(130), geometry.x.accepted_size(118))
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    session = ort.InferenceSession(model)
    (entry,) = session.get_inputs()
    last = network.labels[3] == "c"
    pixels = image.astype(np.float32)[None]
    (whole,) = session.run(None, {entry.name: pixels if last else pixels.transpose(0, 3, 1, 2)})
    expected = whole[0].transpose(2, 0, 1) if last else whole[0]
    tile = tuple(
        axis.accepted_size(max(axis.margin_before, 0) + axis.margin_after + 3 * axis.stride + 4)
        for axis in (geometry.y, geometry.x)
    )
    for plan, shape in {"tile": tile, "strip": None}.items():
        raw, summary, _ = segment(model, image, plan=plan, tile=shape)
        assert summary.tiles > 1 or side
        assert np.abs(raw - expected).max() <= 1e-4 * max(1.0, np.abs(expected).max())
        assert (raw.argmax(0) != expected.argmax(0)).sum() == 0


@pytest.mark.parametrize(
    "name",
    [
        *("keras_unet_transpose.onnx", "tensorflow_unet_nearest_9.onnx", "tensorflow_unet_bilinear_64px_17.onnx"),
        *("tensorflow_valid_17.onnx", "paddle_unet_transpose.onnx", "paddle_hardswish.onnx"),
    ],
)
def test_the_halo_is_tight_by_probe(name):
    found = verify(load_network(HERE / name))
    assert found.holds
    assert {side.verdict for probe in found.probes for side in probe.sides} == {"exact"}
    assert {probe.stride_verdict for probe in found.probes} == {"exact"}
