"""Networks as exporters write them, whose statistics of the whole image are found and taken out of their graphs."""

from __future__ import annotations

import io
import warnings
from dataclasses import replace
from functools import cache

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from exactile.contract import DeployedModel
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource
from exactile_converters.deploy import Normalization, deploy_in_passes
from exactile_converters.from_onnx import Network, prepare_network
from exactile_converters.passes.deploy import obstacles_left
from exactile_converters.passes.reductions import take_out
from exactile_converters.torch_export import export_onnx
from tests.global_nets import GlobalNet
from tests.normed_modules import NETWORKS
from tests.test_passes import check as check_in_passes
from tests.test_passes import small_tile

SIZE = (68, 92)
STRIDE = 4
SCALED = Normalization(scale=(255.0,))
CLOSE = 3e-6
"""Of the largest value."""

NOT_BY_TORCHSCRIPT = {"layer_norm_of_channels", "layer_norm_of_all", "training_norm"}
"""It asks for sizes that are known beforehand."""

QUICK_BY_DYNAMO = {"layer_norm_of_channels", "training_norm"}
CASES = [
    pytest.param(
        name, exporter, marks=[pytest.mark.slow] if exporter == "dynamo" and name not in QUICK_BY_DYNAMO else []
    )
    for name in NETWORKS
    for exporter in ("torchscript", "dynamo")
    if not (exporter == "torchscript" and name in NOT_BY_TORCHSCRIPT)
]


def module_of(name: str) -> torch.nn.Module:
    """With scales and biases that are not 1 and 0."""
    torch.manual_seed(3)
    module = NETWORKS[name]().eval()
    for key, parameter in module.named_parameters():
        if parameter.ndim == 1 and "head" not in key:
            torch.nn.init.normal_(parameter, 0.6, 0.3)
    return module


@cache
def exported(name: str, exporter: str) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export_onnx(module_of(name), buffer, 3, (32, 48), exporter=exporter, stride=STRIDE)
    return buffer.getvalue()


def network_of(model: bytes) -> Network:
    return prepare_network(onnx.load_from_string(model), name="exported.onnx")


def picture(size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8: dark and even above, bright and rough below."""
    random = np.random.default_rng(2)
    pixels = random.integers(20, 40, (*size, 3))
    pixels[size[0] // 2 :] += random.integers(0, 200, (size[0] - size[0] // 2, size[1], 3))
    return pixels.astype(np.uint8)


def one_pass(model: bytes, image: np.ndarray, taken: str = "image") -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    scaled = image.transpose(2, 0, 1)[None].astype(np.float32) / np.float32(255)
    return session.run(None, {taken: scaled})[0][0]


def in_float64(name: str, image: np.ndarray) -> np.ndarray:
    """As PyTorch computes it, with the weights and samples of float32."""
    scaled = image.transpose(2, 0, 1)[None].astype(np.float32) / np.float32(255)
    with torch.no_grad():
        return module_of(name).double()(torch.from_numpy(scaled.astype(np.float64)))[0].numpy()


def ways_of(found: DeployedModel, size: tuple[int, int]) -> list[tuple[DeployedModel, str, tuple[int, int]]]:
    """Tiles and strips without kept maps, tiles with them."""
    again = replace(found, keeping=None)
    ways = [(again, "tile", tile_of(again, size))]
    if again.strips is not None:
        ways.append((again, "strip", (again.strips.startup_rows, size[1])))
    if found.keeping is not None:
        ways.append((found, "tile", tile_of(found.keeping, size)))
    return ways


def tile_of(model: DeployedModel, size: tuple[int, int]) -> tuple[int, int]:
    """One that advances in every pass, by two strides or more in the last one."""
    tiles = [small_tile(one, size) for one in (*(level.model for level in model.levels), model)]
    rows, columns = (max(sides) for sides in zip(*tiles, strict=True))
    return min(size[0], rows + 2 * STRIDE), min(size[1], columns + 2 * STRIDE)


def results_of(model: bytes, image: np.ndarray) -> list[tuple[str, np.ndarray]]:
    size = image.shape[:2]
    found = deploy_in_passes(
        network_of(model), image_dtype="uint8", output="raw", image_size=size, normalization=SCALED
    )
    results = []
    for way, plan, tile in ways_of(found, size):
        sink = ArraySink()
        summary = Session(way).segment(ArraySource(image), sink, plan=plan, tile=tile)
        assert summary.passes
        assert plan != "tile" or max(one.tiles for one in summary.passes) > 1
        results.append((f"{plan}, {'kept maps' if way.keeping is not None else 'all from the image'}", sink.result))
    return results


def check(model: bytes, exact: np.ndarray, image: np.ndarray) -> None:
    """No further from the ``exact`` result than one pass of ONNX Runtime, and the same labels where they are sure."""
    whole = one_pass(model, image)
    of_whole = np.abs(whole - exact).max()
    allowed = max(1.5 * of_whole, CLOSE * np.abs(exact).max())
    ordered = np.sort(exact, axis=0)
    sure = ordered[-1] - ordered[-2] > 2 * allowed
    assert sure.mean() > 0.9
    for way, result in results_of(model, image):
        assert result.shape == whole.shape
        assert np.abs(result - exact).max() <= allowed, (way, np.abs(result - exact).max(), of_whole)
        np.testing.assert_array_equal(result.argmax(0)[sure], whole.argmax(0)[sure])


@pytest.mark.parametrize(("name", "exporter"), CASES)
def test_exported_networks(name, exporter):
    """No obstacle is left, and the result is that of one pass."""
    model, image = exported(name, exporter), picture(SIZE)
    assert not obstacles_left(network_of(model))
    check(model, in_float64(name, image), image)


def divided_by_pixels(net: GlobalNet, value: str) -> str:
    """The mean of each channel, as a sum and the number of pixels, asked of the map."""
    size = net.add("Slice", net.add("Shape", value), net.constant([2]), net.constant([4]))
    pixels = net.add("Cast", net.add("ReduceProd", size, keepdims=1), to=onnx.TensorProto.FLOAT)
    return net.add("Div", net.add("ReduceSum", value, net.constant([2, 3])), pixels)


def of_one(net: GlobalNet, mean: str) -> str:
    return net.add("Add", mean, net.constant(1, np.float32))


def of_a_gate(net: GlobalNet, mean: str) -> str:
    vector = net.add("Reshape", mean, net.constant([1, 4]))
    matrix = net.constant(np.random.default_rng(1).normal(size=(4, 4)), np.float32)
    gate = net.add("HardSigmoid", net.add("Gemm", vector, matrix, transB=1))
    return net.add("Reshape", gate, net.constant([1, 4, 1, 1]))


def of_a_threshold(net: GlobalNet, mean: str) -> str:
    return net.add("Relu", net.add("Sub", mean, net.constant(0.2, np.float32)))


@pytest.mark.parametrize("function", [of_one, of_a_gate, of_a_threshold])
def test_numbers_that_follow_size_and_statistics(function):
    """Of a number that is the same for both sizes of the walk, because the statistic is not the real one there, nothing
    follows: 1 + 1 / H W is 1 in float32, whatever the size.
    """  # fmt: skip
    net = GlobalNet(seed=3)
    value = net.layer("image", 1)
    factor = function(net, divided_by_pixels(net, value))
    check_in_passes(net.model(net.layer(net.add("Mul", value, factor), 4, 2)), (40, 52))


def test_a_limit_that_follows_size_and_statistics_is_refused():
    """A tile cannot be told it."""
    net = GlobalNet(seed=3)
    value = net.layer("image", 1)
    least = net.add("ReduceMin", divided_by_pixels(net, value), keepdims=0)
    model = net.model(net.layer(net.add("Clip", value, least), 4, 2))
    assert [one.op for one in obstacles_left(network_of(model))] == ["Clip"]


def test_the_same_statistic_is_found_once():
    """Two means of a map, and the variance about the second: three uses of one statistic."""
    network, reductions = take_out(network_of(exported("standardised", "torchscript")))
    assert [one.kind for one in reductions] == ["moments", "moments"]
    assert not network.trace().obstacles


def normalized_over_layers(axis: int, *, last: bool, scale: tuple[int, ...] | None) -> bytes:
    """LayerNormalization over the last axes, with channels last or second; ``scale`` is the shape of its scale."""
    net = GlobalNet(seed=5)
    value = net.layer("image", 1)
    if last:
        value = net.add("Transpose", value, perm=[0, 2, 3, 1])
    scales = np.linspace(0.5, 1.5, int(np.prod(scale or ()))).reshape(scale or ())
    value = net.add("LayerNormalization", value, net.constant(scales, np.float32), axis=axis, epsilon=1e-3)
    if last:
        value = net.add("Transpose", value, perm=[0, 3, 1, 2])
    return net.model(net.layer(value, 4, 2))


@pytest.mark.parametrize(
    ("axis", "last", "scale"),
    [(2, False, ()), (-2, False, (4, 1, 1)), (1, False, (4, 1, 1)), (1, True, (4,)), (0, True, ())],
)
def test_layer_normalisation_over_the_image(axis, last, scale):
    check_in_passes(normalized_over_layers(axis, last=last, scale=scale), (40, 52))


@pytest.mark.parametrize(
    ("axis", "last", "scale"), [(3, False, ()), (2, True, ()), (2, False, (40, 52)), (1, False, (4, 40, 1))]
)
def test_layer_normalisation_that_is_refused(axis, last, scale):
    """Along rows alone, or with a scale for each place."""
    model = normalized_over_layers(axis, last=last, scale=scale)
    assert [one.op for one in obstacles_left(network_of(model))] == ["LayerNormalization"]
