"""The reference networks: their shapes, their reach, their exports and their exact integer weights."""

from __future__ import annotations

import io

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from exactile.geometry import round_up
from exactile_converters.torch_export import export_onnx
from models.fc_densenet import LAYERS, FCDenseNet, fc_densenet
from models.integer_weights import integer_weights
from models.segnet import SegNet
from models.unet import UNet
from tests.support.nets import (
    INTEGER_NETS,
    NETS,
    Net,
    Reach,
    even,
    onnx_bytes,
    onnx_file,
    random_image,
    start_end,
    torch_net,
)


def run_onnx(model: bytes, image: torch.Tensor) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"image": image.numpy()})
    return logits


def with_positive_weights(module: nn.Module) -> nn.Module:
    """The network made linear and positive (float64): then no influence can cancel, fade to zero or lose a maximum."""
    module.eval().double()
    for parent in list(module.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.MaxPool2d):
                setattr(parent, name, nn.AvgPool2d(layer.kernel_size, layer.stride, layer.padding))
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.constant_(layer.weight, 1 / (layer.in_channels * layer.kernel_size[0]))
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
    return module


def reach_by_gradient(net: Net) -> Reach:
    """Which input rows and columns a stride-wide output box has a gradient to, on images that are narrow across."""
    module = with_positive_weights(net.build())
    reach = net.reach
    margin = round_up(max(reach.top, reach.bottom, reach.left, reach.right), net.stride) + net.stride
    start, stop, narrow = margin, margin + net.stride, round_up(16, net.stride)
    sides = []
    for axis in (2, 3):
        shape = [1, net.channels, narrow, narrow]
        shape[axis] = stop + margin
        image = torch.ones(shape, dtype=torch.float64, requires_grad=True)
        box = module(image).narrow(axis, int(start * net.scale), int(net.stride * net.scale))
        (gradient,) = torch.autograd.grad(box.sum(), image)
        seen = gradient.sum(dim=[a for a in range(4) if a != axis]).nonzero()
        sides += [start - int(seen.min()), int(seen.max()) + 1 - stop]
    return Reach(top=sides[0], bottom=sides[1], left=sides[2], right=sides[3])


@pytest.mark.parametrize("name", NETS)
def test_registry_states_what_the_gradient_shows(name: str) -> None:
    """The reach in the registry is the extent of the gradient in a positive linear network of the same structure."""
    net = NETS[name]
    assert reach_by_gradient(net) == net.reach


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layers", "up", "reach"),
    [
        (LAYERS[67], "same3", start_end(508, 476)),
        (LAYERS[67], "transpose2", even(476)),
        (LAYERS[103], "same3", start_end(1147, 1115)),
        (LAYERS[103], "transpose2", even(1115)),
    ],
)
def test_reach_of_the_larger_fc_densenets(layers: tuple[int, ...], up: str, reach: Reach) -> None:
    """FC-DenseNet-67 and -103 reach as far as their docstring says."""
    net = Net(
        build=lambda: FCDenseNet(1, 1, layers=layers, growth=1, features=1, up=up), channels=1, stride=32, reach=reach
    )
    assert reach_by_gradient(net) == reach


@pytest.mark.parametrize("name", NETS)
def test_shapes_and_export(name: str) -> None:
    """The export gives what PyTorch gives, in the promised shape, for sizes and batches it was not traced at."""
    net, module = NETS[name], torch_net(name)
    for batch, height, width in ((1, 96, 160), (3, 32, 64)):
        image = random_image(name, height, width).expand(batch, -1, -1, -1).contiguous()
        with torch.no_grad():
            expected = module(image).numpy()
        assert expected.shape[0] == batch
        assert expected.shape[2:] == (net.output_size(height), net.output_size(width))
        np.testing.assert_allclose(run_onnx(onnx_bytes(name), image), expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("name", INTEGER_NETS)
def test_integer_weights_are_exact(name: str) -> None:
    """With integer weights, PyTorch in float32, PyTorch in float64 and ONNX Runtime agree bit for bit."""
    module = torch_net(name, "integer")
    image = random_image(name, 96, 128, seed=1)
    with torch.no_grad():
        single = module(image).numpy()
        double = module.double()(image.double()).numpy()
        module.float()
    assert len(np.unique(single)) > 8, "the network has gone silent"
    np.testing.assert_array_equal(single.astype(np.float64), double)
    np.testing.assert_array_equal(run_onnx(onnx_bytes(name, "integer"), image), single)


@pytest.mark.parametrize("name", [name for name in INTEGER_NETS if not name.startswith("fc_densenet")])
def test_integer_weights_let_one_pixel_reach_as_far_as_it_can(name: str) -> None:
    """A large value in the farthest pixel above left or below right changes the box; one pixel further it does not."""
    net, module = NETS[name], torch_net(name, "integer")
    reach, stride = net.reach, net.stride
    start = round_up(max(reach.top, reach.left) + 1, stride)
    stop = start + 2 * stride
    size = round_up(stop + max(reach.bottom, reach.right) + 1, stride)
    image = random_image(name, size, size).double()
    inside, outside = image.clone(), image.clone()
    for poked, further in ((inside, 0), (outside, 1)):
        poked[:, :, start - reach.top - further, start - reach.left - further] += 1 << 20
        poked[:, :, stop + reach.bottom - 1 + further, stop + reach.right - 1 + further] += 1 << 20
    with torch.no_grad():
        plain, near, far = module.double()(torch.cat([image, inside, outside]))
        module.float()
    first, middle, last = (int(at * net.scale) for at in (start, start + stride, stop))
    assert not torch.equal(near[:, first:middle, first:middle], plain[:, first:middle, first:middle])
    assert not torch.equal(near[:, middle:last, middle:last], plain[:, middle:last, middle:last])
    assert torch.equal(far[:, first:last, first:last], plain[:, first:last, first:last])


def test_integer_weights_are_seeded() -> None:
    """The same seed gives the same weights, another seed others."""
    states = [integer_weights(UNet(1, 2, features=4, depth=1), seed, channels=1).state_dict() for seed in (3, 3, 4)]
    same, other = (all(torch.equal(states[0][key], state[key]) for key in state) for state in states[1:])
    assert same
    assert not other


def test_integer_weights_refuse_what_float32_cannot_hold() -> None:
    """Six levels of bilinear up-sampling need 24 bits of fraction alone; the module comes back in float32."""
    module = UNet(1, 2, features=4, depth=6, up="bilinear")
    with pytest.raises(ValueError, match="exact in float32"):
        integer_weights(module, 0, channels=1)
    assert next(module.parameters()).dtype == torch.float32


def test_integer_weights_refuse_grouped_convolutions() -> None:
    """A grouped convolution is named as not supported."""
    with pytest.raises(ValueError, match="groups=2"):
        integer_weights(nn.Conv2d(4, 4, 3, groups=2), 0, channels=4)


@pytest.mark.parametrize("name", ["unet_bilinear_skip_d2", pytest.param("unet_d2", marks=pytest.mark.slow)])
def test_dynamo_export(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    """The newer exporter gives the same function with free sizes, and prints nothing."""
    model = onnx_bytes(name, exporter="dynamo")
    assert capfd.readouterr() == ("", "")
    image = random_image(name, 40, 88)
    with torch.no_grad():
        expected = torch_net(name)(image).numpy()
    np.testing.assert_allclose(run_onnx(model, image), expected, atol=1e-4 * np.abs(expected).max())


def test_export_names_axes_and_opset() -> None:
    """Input and output have the documented names, symbolic axes and opset; every output size is its own symbol."""
    model = onnx.load_from_string(onnx_bytes("low_resolution"))
    onnx.checker.check_model(model, full_check=True)

    def axes(value: onnx.ValueInfoProto) -> list[str | int]:
        return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]

    assert [value.name for value in (*model.graph.input, *model.graph.output)] == ["image", "logits"]
    assert axes(model.graph.input[0]) == ["batch", 3, "height", "width"]
    assert axes(model.graph.output[0]) == ["batch", 3, "output_height", "output_width"]
    assert model.opset_import[0].version == 17


def test_fixed_export_has_the_given_size() -> None:
    """Without dynamic axes the example's size, batch 1, is the model's."""
    buffer = io.BytesIO()
    export_onnx(UNet(1, 2, features=4, depth=1), buffer, 1, (32, 48), dynamic=False)
    dims = onnx.load_from_string(buffer.getvalue()).graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_value for dim in dims] == [1, 1, 32, 48]


def test_export_leaves_the_module_as_it_was(tmp_path) -> None:
    """A module in training mode is exported in eval mode and stays in training mode."""
    module = UNet(1, 2, features=4, depth=1).train()
    export_onnx(module, tmp_path / "net.onnx", 1)
    assert module.training
    image = torch.rand(1, 1, 16, 16)
    with torch.no_grad():
        expected = module.eval()(image).numpy()
    np.testing.assert_allclose(run_onnx((tmp_path / "net.onnx").read_bytes(), image), expected, atol=1e-4)


def test_sizes_from_skip_puts_shape_operators_in_the_graph() -> None:
    """That is what the variant is for; the plain one has none."""
    operators = [
        {node.op_type for node in onnx.load_from_string(onnx_bytes(name)).graph.node}
        for name in ("unet_bilinear_skip_d2", "unet_bilinear_d2")
    ]
    assert "Shape" in operators[0]
    assert "Shape" not in operators[1]


def test_onnx_file_is_written_once(tmp_path) -> None:
    """A second request returns the same file, unwritten."""
    first = onnx_file(tmp_path, "asymmetric")
    written = first.stat().st_mtime_ns
    assert onnx_file(tmp_path, "asymmetric") == first
    assert first.stat().st_mtime_ns == written


def test_full_size_networks_have_the_published_layers() -> None:
    """Convolutions and parameters of the paper's U-Net, SegNet and the FC-DenseNets are those of the publications."""

    def convolutions(module: nn.Module) -> int:
        return sum(isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) for layer in module.modules())

    assert convolutions(UNet(1, 2)) == 23
    assert convolutions(SegNet(3, 2)) == 27
    for name in (56, 67, 103):
        assert convolutions(fc_densenet(name, 3, 2)) == name
    millions = sum(parameter.numel() for parameter in UNet(1, 2).parameters()) / 1e6
    assert millions == pytest.approx(31.0, abs=0.1)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: UNet(1, 2, up="cubic"), "got 'cubic'"),
        (lambda: UNet(1, 2, up="transpose2", sizes_from_skip=True), "got up='transpose2'"),
        (lambda: SegNet(1, 2, up="bilinear"), "got 'bilinear'"),
        (lambda: FCDenseNet(1, 2, up="nearest"), "got 'nearest'"),
        (lambda: fc_densenet(100, 1, 2), "not 100"),
        (lambda: export_onnx(nn.Identity(), io.BytesIO(), 1, exporter="jit"), "got 'jit'"),
        (lambda: export_onnx(nn.Identity(), io.BytesIO(), 1, exporter="dynamo", opset=17), "asked for 17"),
    ],
)
def test_wrong_options_are_named(build, message: str) -> None:
    """An option that cannot be used is refused with its value."""
    with pytest.raises(ValueError, match=message):
        build()
