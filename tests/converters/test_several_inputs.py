"""Networks with several image inputs: the channels of one image are dealt out to them in order."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from exactile.errors import ModelError
from exactile_converters.prepare.from_onnx import prepare_network
from tests.runs.test_exactness import segment
from tests.support.command import exactile, run_json


def weights(name: str, *shape: int, seed: int) -> TensorProto:
    values = np.random.default_rng(seed).integers(-1, 2, shape).astype(np.float32)
    return numpy_helper.from_array(values, name)


def model_of(nodes, initializers, inputs) -> bytes:
    graph = helper.make_graph(
        [helper.make_node(op, list(i), list(o), **attributes) for op, i, o, attributes in nodes],
        "g",
        [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in inputs],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", 2, "oh", "ow"])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


def two_depths() -> bytes:
    """``a`` goes down two levels and up again; ``b``, channels last, through one 5x5 convolution."""
    pool = {"kernel_shape": [2, 2], "strides": [2, 2]}
    nodes = [
        ("Conv", ["a", "w0"], ["a0"], {"pads": [1] * 4}),
        ("MaxPool", ["a0"], ["a1"], pool),
        ("Conv", ["a1", "w1"], ["a2"], {"pads": [1] * 4}),
        ("MaxPool", ["a2"], ["a3"], pool),
        ("ConvTranspose", ["a3", "w2"], ["a4"], {"strides": [4, 4]}),
        ("Transpose", ["b"], ["b0"], {"perm": [0, 3, 1, 2]}),
        ("Conv", ["b0", "w3"], ["b1"], {"pads": [2] * 4}),
        ("Concat", ["a4", "b1"], ["joined"], {"axis": 1}),
        ("Conv", ["joined", "w4"], ["out"], {}),
    ]
    initializers = [
        weights("w0", 4, 3, 3, 3, seed=0),
        weights("w1", 4, 4, 3, 3, seed=1),
        weights("w2", 4, 3, 4, 4, seed=2),
        weights("w3", 2, 2, 5, 5, seed=3),
        weights("w4", 2, 5, 1, 1, seed=4),
    ]
    inputs = [
        ("a", TensorProto.FLOAT, ["n", 3, "h", "w"]),
        ("b", TensorProto.FLOAT, ["n", "h", "w", 2]),
    ]
    return model_of(nodes, initializers, inputs)


def split_pass(model: bytes, image: np.ndarray) -> np.ndarray:
    """Plain ONNX Runtime, fed by hand: (C, H, W)."""
    pixels = image.astype(np.float32)
    feeds = {"a": pixels[..., :3].transpose(2, 0, 1)[None], "b": pixels[..., 3:][None]}
    return ort.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, feeds)[0][0]


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 5, (height, width, 5), dtype=np.uint8)


@pytest.mark.parametrize("options", [{"tile": (24, 32)}, {"plan": "strip", "tile": (8, 32)}], ids=["tile", "strip"])
def test_tiles_and_strips_equal_one_pass_with_both_inputs(options):
    model, image = two_depths(), picture(64, 72)
    raw, summary, _ = segment(model, image, **options)
    assert summary.tiles > 4
    assert np.array_equal(raw, split_pass(model, image))


def test_the_halo_is_what_either_input_needs():
    """A pixel changed just outside the claimed halo changes nothing, on its last pixel it does: for both inputs."""
    model, image = two_depths(), picture(64, 64)
    axis = prepare_network(onnx.load_from_string(model), name="two").trace().geometry.y
    base = split_pass(model, image)
    reach = []
    for channel in range(5):
        touched = []
        for row in range(16, 48):
            changed = image.copy()
            changed[row, :, channel] += 100
            rows = np.flatnonzero((split_pass(model, changed) != base).any(axis=(0, 2)))
            touched.append((row, rows[0] // axis.stride * axis.stride, (rows[-1] // axis.stride + 1) * axis.stride))
        reach.append(
            (
                max(stop - axis.stride - row for row, _, stop in touched),
                max(row + 1 - start - axis.stride for row, start, _ in touched),
            )
        )
    assert max(before for before, _ in reach) == axis.before
    assert max(after for _, after in reach) == axis.after
    assert len(set(reach)) == 2  # the inputs differ in how far they reach


def test_the_commands_take_an_image_with_all_channels(tmp_path):
    path, image = tmp_path / "two.onnx", picture(64, 72)
    path.write_bytes(two_depths())
    np.save(tmp_path / "image.npy", image)
    run_json(path, tmp_path / "image.npy", "-o", tmp_path / "raw.npy", "--output", "raw", "--tile", "24x32")
    assert np.array_equal(np.load(tmp_path / "raw.npy"), split_pass(two_depths(), image))
    inspected = json.loads(exactile("inspect", path, "--json").stdout)
    assert [(one["name"], one["image_channels"]) for one in inspected["inputs"]] == [("a", [0, 3]), ("b", [3, 5])]
    verified = exactile("verify", path, "--no-progress")
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_an_unused_input_takes_no_channels():
    inputs = [(name, TensorProto.FLOAT, ["n", 3, "h", "w"]) for name in ("idle", "image")]
    model = model_of([("Conv", ["image", "w"], ["out"], {})], [weights("w", 2, 3, 1, 1, seed=0)], inputs)
    network = prepare_network(onnx.load_from_string(model), name="net")
    assert (network.channels, network.image.name) == (3, "image")


def test_inputs_of_different_fixed_sizes_are_refused():
    inputs = [("a", TensorProto.FLOAT, [1, 3, 64, 64]), ("b", TensorProto.FLOAT, [1, 3, 32, 64])]
    nodes = [
        ("Resize", ["b", "", "s"], ["b1"], {}),
        ("Add", ["a", "b1"], ["sum"], {}),
        ("Conv", ["sum", "w"], ["out"], {}),
    ]
    scales = numpy_helper.from_array(np.array([1, 1, 2, 1], np.float32), "s")
    model = model_of(nodes, [weights("w", 2, 3, 1, 1, seed=0), scales], inputs)
    with pytest.raises(ModelError, match=r"along y \('a' has 64, 'b' has 32\)"):
        prepare_network(onnx.load_from_string(model), name="two")


def test_an_input_that_is_no_image_is_named():
    inputs = [("a", TensorProto.FLOAT, ["n", 3, "h", "w"]), ("gain", TensorProto.FLOAT, [1])]
    nodes = [("Mul", ["a", "gain"], ["m"], {}), ("Conv", ["m", "w"], ["out"], {})]
    model = model_of(nodes, [weights("w", 2, 3, 1, 1, seed=0)], inputs)
    with pytest.raises(ModelError, match="'gain' of 1 dimensions"):
        prepare_network(onnx.load_from_string(model), name="two")
