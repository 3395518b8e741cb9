"""Small networks that the tests share, by name, with what is known about their geometry."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, partial
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from exactile_converters.torch_export import Exporter, export_onnx
from models.fc_densenet import LAYERS, FCDenseNet
from models.integer_weights import balance_classes, integer_weights
from models.resnet_unet import ResNetUNet
from models.segnet import SegNet
from models.unet import UNet

Weights = Literal["random", "integer", "classes"]
"""``integer``: sums are exact in any order, and one class may win everywhere; ``classes``: the same, several win."""

# The tensors are small: a pool of threads would cost more than it gains.
torch.set_num_threads(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """Input pixels that an output box depends on beyond itself, on each side.

    For a box from ``a`` to ``b``, multiples of the stride in input coordinates, the output pixels
    ``[a * scale, b * scale)`` depend on the input pixels ``[a - before, b + after)``.
    """

    top: int
    bottom: int
    left: int
    right: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Net:
    """A test network. An input of ``n`` pixels, a multiple of ``stride``, gives ``n*scale + size_constant``."""

    build: Callable[[], nn.Module]
    channels: int
    stride: int
    reach: Reach
    scale: Fraction = Fraction(1)
    size_constant: int = 0
    integer_weights: bool = True

    def output_size(self, size: int) -> int:
        return int(size * self.scale) + self.size_constant


def even(pixels: int) -> Reach:
    return Reach(top=pixels, bottom=pixels, left=pixels, right=pixels)


def start_end(start: int, end: int) -> Reach:
    return Reach(top=start, bottom=end, left=start, right=end)


def dilated() -> nn.Module:
    return nn.Sequential(
        *(
            layer
            for channels, dilation in ((3, 1), (8, 2), (8, 4))
            for layer in (nn.Conv2d(channels, 8, 3, padding=dilation, dilation=dilation), nn.ReLU())
        ),
        nn.Conv2d(8, 3, 1),
    )


def asymmetric() -> nn.Module:
    """Left 1, right 2, top 0, bottom 3, as much as a 4x4 kernel takes away; then one ordinary convolution."""
    return nn.Sequential(
        nn.ZeroPad2d((1, 2, 0, 3)),
        nn.Conv2d(1, 8, 4),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 2, 1),
    )


def valid() -> nn.Module:
    """Down and up once, all convolutions unpadded."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 8, 2, stride=2),
        nn.Conv2d(8, 8, 3),
        nn.ReLU(),
        nn.Conv2d(8, 3, 1),
    )


def super_resolution() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 4, 4, stride=2, padding=1),
    )


def low_resolution() -> nn.Module:
    layers: list[nn.Module] = []
    for channels in (3, 8):
        layers += [nn.Conv2d(channels, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Conv2d(8, 3, 3, padding=1))


def dense(name: int, up: Literal["same3", "transpose2"]) -> FCDenseNet:
    return FCDenseNet(3, 3, layers=LAYERS[name], growth=4, features=8, up=up)


unet = partial(UNet, in_channels=3, classes=3, features=8)
resnet = partial(ResNetUNet, in_channels=3, classes=3, features=8, blocks=(1, 1, 1, 1))

# The numbers of the U-Nets, FC-DenseNets and SegNet are worked out on paper; test_models.py checks all of them.
NETS: dict[str, Net] = {
    "unet_d1": Net(build=partial(unet, depth=1, in_channels=1), channels=1, stride=2, reach=even(8)),
    "unet_d1_rgb": Net(build=partial(unet, depth=1), channels=3, stride=2, reach=even(8)),
    "unet_d2": Net(build=partial(unet, depth=2), channels=3, stride=4, reach=even(22)),
    "unet_d3": Net(build=partial(unet, depth=3), channels=3, stride=8, reach=even(46)),
    "unet_d4": Net(build=partial(unet, depth=4), channels=3, stride=16, reach=even(94)),
    "unet_plain_d2": Net(build=partial(unet, depth=2, batch_norm=False), channels=3, stride=4, reach=even(22)),
    "unet_transpose3_d1": Net(
        build=partial(unet, depth=1, up="transpose3"), channels=3, stride=2, reach=start_end(8, 10)
    ),
    "unet_transpose3_d2": Net(
        build=partial(unet, depth=2, up="transpose3"), channels=3, stride=4, reach=start_end(22, 26)
    ),
    "unet_transpose3_d3": Net(
        build=partial(unet, depth=3, up="transpose3"), channels=3, stride=8, reach=start_end(46, 54)
    ),
    "unet_transpose3_d4": Net(
        build=partial(unet, depth=4, up="transpose3"), channels=3, stride=16, reach=start_end(94, 110)
    ),
    "unet_bilinear_d1": Net(build=partial(unet, depth=1, up="bilinear"), channels=3, stride=2, reach=even(10)),
    "unet_bilinear_d2": Net(build=partial(unet, depth=2, up="bilinear"), channels=3, stride=4, reach=even(26)),
    "unet_bilinear_d3": Net(build=partial(unet, depth=3, up="bilinear"), channels=3, stride=8, reach=even(54)),
    "unet_bilinear_d4": Net(build=partial(unet, depth=4, up="bilinear"), channels=3, stride=16, reach=even(110)),
    "unet_bilinear_skip_d2": Net(
        build=partial(unet, depth=2, up="bilinear", sizes_from_skip=True), channels=3, stride=4, reach=even(26)
    ),
    "unet_nearest_d1": Net(build=partial(unet, depth=1, up="nearest"), channels=3, stride=2, reach=even(8)),
    "unet_nearest_d2": Net(build=partial(unet, depth=2, up="nearest"), channels=3, stride=4, reach=even(22)),
    "unet_nearest_d3": Net(build=partial(unet, depth=3, up="nearest"), channels=3, stride=8, reach=even(46)),
    "unet_nearest_d4": Net(build=partial(unet, depth=4, up="nearest"), channels=3, stride=16, reach=even(94)),
    "fc_densenet56": Net(build=partial(dense, 56, "same3"), channels=3, stride=32, reach=start_end(413, 381)),
    "fc_densenet56_transpose2": Net(build=partial(dense, 56, "transpose2"), channels=3, stride=32, reach=even(381)),
    "segnet": Net(build=partial(SegNet, 3, 3, features=4), channels=3, stride=32, reach=even(186)),
    "resnet_unet": Net(build=partial(resnet, up="nearest"), channels=3, stride=32, reach=start_end(161, 130)),
    "resnet_unet_bilinear": Net(
        build=partial(resnet, up="bilinear"), channels=3, stride=32, reach=start_end(193, 162), integer_weights=False
    ),
    "dilated": Net(build=dilated, channels=3, stride=1, reach=even(7)),
    "asymmetric": Net(build=asymmetric, channels=1, stride=1, reach=Reach(top=1, bottom=4, left=2, right=3)),
    "valid": Net(build=valid, channels=1, stride=2, reach=start_end(0, 8), size_constant=-8),
    "super_resolution": Net(build=super_resolution, channels=1, stride=1, reach=even(3), scale=Fraction(2)),
    "low_resolution": Net(build=low_resolution, channels=3, stride=4, reach=even(7), scale=Fraction(1, 4)),
}
INTEGER_NETS = [name for name, net in NETS.items() if net.integer_weights]


def random_weights(module: nn.Module, seed: int) -> nn.Module:
    """Seeded weights that neither fade nor explode with depth, and batch normalisation that does something."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(layer.weight, generator=generator)
                if layer.bias is not None:
                    layer.bias.normal_(0, 0.1, generator=generator)
            elif isinstance(layer, nn.BatchNorm2d):
                assert layer.running_mean is not None
                assert layer.running_var is not None
                layer.running_mean.normal_(0, 0.1, generator=generator)
                layer.running_var.uniform_(0.5, 1.5, generator=generator)
                layer.weight.uniform_(0.8, 1.2, generator=generator)
                layer.bias.normal_(0, 0.1, generator=generator)
    return module.eval()


@cache
def torch_net(name: str, weights: Weights = "random") -> nn.Module:
    """The named network, in eval mode. The object is shared: do not change it."""
    net = NETS[name]
    module = net.build()
    if weights == "random":
        return random_weights(module, seed=0)
    if not net.integer_weights:
        raise ValueError(f"{name} has too many bilinear levels for integer weights")
    integer_weights(module, seed=0, channels=net.channels)
    if weights == "classes":
        balance_classes(module, channels=net.channels)
    return module


@cache
def onnx_bytes(name: str, weights: Weights = "random", exporter: Exporter = "torchscript") -> bytes:
    """The named network as a serialised ONNX model with free batch, height and width."""
    net = NETS[name]
    buffer = io.BytesIO()
    export_onnx(torch_net(name, weights), buffer, net.channels, exporter=exporter, stride=net.stride)
    return buffer.getvalue()


def onnx_file(directory: Path, name: str, weights: Weights = "random") -> Path:
    """The same as a file ``<name>-<weights>.onnx`` in ``directory``, written once."""
    path = directory / f"{name}-{weights}.onnx"
    if not path.exists():
        path.write_bytes(onnx_bytes(name, weights))
    return path


def random_image(name: str, height: int, width: int, *, seed: int = 0, largest: int = 7) -> torch.Tensor:
    """Random integers in [0, largest]: (1, C, height, width) float32."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, largest + 1, (1, NETS[name].channels, height, width), generator=generator).float()
