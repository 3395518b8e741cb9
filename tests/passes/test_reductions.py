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
from exactile_converters.networks.network import Network
from exactile_converters.passes.deploy import obstacles_left
from exactile_converters.passes.reductions import take_out
from exactile_converters.prepare.from_onnx import prepare_network
from exactile_converters.torch_export import export_onnx
from tests.passes.test_passes import check as check_in_passes
from tests.passes.test_passes import small_tile
from tests.support.global_nets import GlobalNet
from tests.support.normed_modules import NETWORKS
from tests.support.torchvision_operators import torchvision_declared

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


def in_float64(module: torch.nn.Module, image: np.ndarray) -> np.ndarray:
    """As PyTorch computes it, with the weights and samples of float32."""
    scaled = image.transpose(2, 0, 1)[None].astype(np.float32) / np.float32(255)
    with torch.no_grad():
        return module.double()(torch.from_numpy(scaled.astype(np.float64)))[0].numpy()


def ways_of(found: DeployedModel, size: tuple[int, int]) -> list[tuple[DeployedModel, str, tuple[int, int]]]:
    """Tiles and strips without kept maps, tiles with them."""
    again, stride = replace(found, keeping=None), found.contract.geometry.y.stride
    ways = [(again, "tile", tile_of(again, size, stride))]
    if again.strips is not None:
        ways.append((again, "strip", (again.strips.startup_rows, size[1])))
    kept = found.keeping.at(size) if found.keeping is not None else None
    if kept is not None:
        ways.append((found, "tile", tile_of(kept, size, stride)))
    return ways


def tile_of(model: DeployedModel, size: tuple[int, int], stride: int) -> tuple[int, int]:
    """One that advances in every pass, by two strides of the network or more in the last one."""
    tiles = [small_tile(one, size) for one in (*(level.model for level in model.levels), model)]
    least = (max(sides) for sides in zip(*tiles, strict=True))
    rows, columns = (min(px, side + (px - side) % stride + 2 * stride) for px, side in zip(size, least, strict=True))
    return rows, columns


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
    check(model, in_float64(module_of(name), image), image)


class OfTorchvision(torch.nn.Module):
    """The scores of a segmentation network of torchvision."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x)["out"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "size"), [("lraspp_mobilenet_v3_large", (84, 2900)), ("deeplabv3_mobilenet_v3_large", (84, 2900))]
)
def test_networks_of_torchvision(family, size):
    """Squeeze-and-excitation in the backbone; global pooling in the head, resized or multiplied."""
    with torchvision_declared():
        segmentation = pytest.importorskip("torchvision.models.segmentation", exc_type=ImportError)
        torch.manual_seed(0)
        module = OfTorchvision(getattr(segmentation, family)(weights=None, weights_backbone=None, num_classes=3)).eval()
        buffer = io.BytesIO()
        export_onnx(module, buffer, 3, (96, 128))
        assert not obstacles_left(network_of(buffer.getvalue()))
        image = picture(size)
        check(buffer.getvalue(), in_float64(module, image), image)


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


def normalized_by_keras(net: GlobalNet, value: str, *, groups: int, interleaved: bool = False) -> str:
    """As Keras normalises groups: channels last, in two axes, by the mean of squares less the squared mean."""
    last = net.add("Transpose", value, perm=[0, 2, 3, 1])
    size = net.add("Slice", net.add("Shape", last), net.constant([1]), net.constant([3]))
    between = [4 // groups, groups] if interleaved else [groups, 4 // groups]
    split = net.add("Reshape", last, net.add("Concat", net.constant([1]), size, net.constant(between), axis=0))
    axes = net.constant([1, 2, 3] if interleaved else [1, 2, 4])
    mean = net.add("ReduceMean", split, axes)
    squares = net.add("ReduceMean", net.add("Mul", split, split), axes)
    variance = net.add("Sub", squares, net.add("Mul", mean, mean))
    factor = net.add("Reciprocal", net.add("Sqrt", net.add("Add", variance, net.constant(1e-3, np.float32))))
    normal = net.add("Mul", net.add("Sub", split, mean), factor)
    return net.add("Transpose", net.add("Reshape", normal, net.add("Shape", last)), perm=[0, 3, 1, 2])


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_groups_of_channels_in_an_axis_of_their_own(groups):
    net = GlobalNet(seed=8)
    model = net.model(net.layer(normalized_by_keras(net, net.layer("image", 1), groups=groups), 4, 2))
    _, reductions = take_out(network_of(model))
    assert [(one.kind, one.groups) for one in reductions] == [("moments", groups)]
    check_in_passes(model, (40, 52), tolerance=2e-5)  # one pass loses digits


def test_groups_whose_channels_are_not_neighbours_are_refused():
    net = GlobalNet(seed=8)
    value = normalized_by_keras(net, net.layer("image", 1), groups=2, interleaved=True)
    assert {one.op for one in obstacles_left(network_of(net.model(net.layer(value, 4, 2))))} == {"ReduceMean"}


def less_another_square(net: GlobalNet, value: str, about: str) -> str:
    """Almost a variance, by means of ``value``, of ``about`` or over channels, too."""
    over, other = net.constant([2, 3]), net.layer("image", 1)
    mean = net.add("ReduceMean", value, over)
    squares = net.add("ReduceMean", net.add("Mul", value, value), over)
    if about == "other map":
        mean = net.add("ReduceMean", other, over)
    if about == "other product":
        squares = net.add("ReduceMean", net.add("Mul", value, other), over)
    if about == "all channels":
        mean = net.add("ReduceMean", value, net.constant([1, 2, 3]))
    if about == "cube":
        squares = net.add("ReduceMean", net.add("Pow", value, net.constant(3, np.float32)), over)
    if about == "not squared":
        return net.add("Sub", squares, mean)
    square = net.add("Mul", mean, mean)
    if about == "two means":
        square = net.add("Mul", mean, net.add("ReduceMean", other, over))
    return net.add("Sub", square, squares) if about == "reversed" else net.add("Sub", squares, square)


@pytest.mark.parametrize(
    "about",
    ["other map", "other product", "all channels", "cube", "not squared", "two means", "reversed"],
)
def test_what_is_almost_a_variance_is_computed_as_it_stands(about):
    net = GlobalNet(seed=9)
    value = net.layer("image", 1)
    factor = net.add("Sigmoid", less_another_square(net, value, about))
    model = net.model(net.layer(net.add("Mul", value, factor), 4, 2))
    _, reductions = take_out(network_of(model))
    assert {one.kind for one in reductions} == {"mean"}
    check_in_passes(model, (40, 52))


def test_a_mean_of_squares_that_serves_twice():
    """Of a variance, and alone: both are found."""
    net = GlobalNet(seed=9)
    value, over = net.layer("image", 1), net.constant([2, 3])
    mean, squares = net.add("ReduceMean", value, over), net.add("ReduceMean", net.add("Mul", value, value), over)
    variance = net.add("Sub", squares, net.add("Pow", mean, net.constant(2, np.float32)))
    factor = net.add("Sigmoid", net.add("Add", variance, net.add("Sqrt", squares)))
    model = net.model(net.layer(net.add("Mul", value, factor), 4, 2))
    _, reductions = take_out(network_of(model))
    assert {one.kind for one in reductions} == {"mean", "moments"}
    check_in_passes(model, (40, 52))


def test_a_mean_of_squares_about_a_maximum():
    """It is found after the maximum, in a pass of its own."""
    net = GlobalNet(seed=8)
    value = net.layer("image", 1)
    apart = net.add("Sub", value, net.add("GlobalMaxPool", value))
    spread = net.add("ReduceMean", net.add("Mul", apart, apart), net.constant([2, 3]))
    model = net.model(net.layer(net.add("Div", value, spread), 4, 2))
    _, reductions = take_out(network_of(model))
    assert [one.kind for one in reductions] == ["maximum", "mean"]
    check_in_passes(model, (40, 52))


def test_a_variance_by_squares_loses_no_digits():
    """A mean far from 0: what float32 loses in one pass is not lost in passes."""
    torch.manual_seed(3)
    module = NETWORKS["decomposed"]().eval()
    torch.nn.init.constant_(module.enter.bias, 40.0)
    buffer, image = io.BytesIO(), picture(SIZE)
    export_onnx(module, buffer, 3, (32, 48))
    exact = in_float64(module, image)
    of_whole = np.abs(one_pass(buffer.getvalue(), image) - exact).max()
    for way, result in results_of(buffer.getvalue(), image):
        assert np.abs(result - exact).max() < of_whole / 4, way
