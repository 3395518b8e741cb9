"""Networks that resize by the position in the image, as they are met in practice, with seeded random weights.

``large`` is the network as published; without it, one of few channels and blocks. Torchvision's and
segmentation-models-pytorch's are skipped where these libraries are missing.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from exactile_converters.torch_export import Exporter, export_onnx
from models.unet import ConvBlock, UNet
from tests.support.hrnet import HRNet
from tests.support.nets import random_weights
from tests.support.torchvision_operators import torchvision_declared

CLASSES = 3


class Up(nn.Module):
    """(N, 2f, h, w) and the skip (N, f, H, W) -> (N, f, H, W): interpolated to the size of the skip connection."""

    def __init__(self, features: int, *, align_corners: bool) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.convs = ConvBlock(3 * features, features)

    def forward(self, below: Tensor, skip: Tensor) -> Tensor:
        above = interpolate(below, size=skip.shape[-2:], mode="bilinear", align_corners=self.align_corners)
        return self.convs(torch.cat([above, skip], dim=1))


class PaddedUp(nn.Module):
    """Doubled with corners aligned, then padded with zeros to the size of the skip connection."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.convs = ConvBlock(3 * features, features)

    def forward(self, below: Tensor, skip: Tensor) -> Tensor:
        above = self.up(below)
        rows, columns = skip.shape[2] - above.shape[2], skip.shape[3] - above.shape[3]
        above = pad(above, [columns // 2, columns - columns // 2, rows // 2, rows - rows // 2])
        return self.convs(torch.cat([skip, above], dim=1))


def unet(large: bool, up: Callable[[int], nn.Module]) -> nn.Module:
    features, depth = (16, 4) if large else (4, 3)
    net = UNet(3, CLASSES, features=features, depth=depth, up="bilinear")
    net.ups = nn.ModuleList(up(features * 2**level) for level in reversed(range(depth)))
    return net


def unet_to_skip(large: bool) -> nn.Module:
    return unet(large, lambda features: Up(features, align_corners=False))


def unet_aligned(large: bool) -> nn.Module:
    return unet(large, lambda features: Up(features, align_corners=True))


def unet_padded(large: bool) -> nn.Module:
    return unet(large, PaddedUp)


def hrnet(large: bool) -> nn.Module:
    return HRNet(CLASSES) if large else HRNet(CLASSES, 4, (1, 1, 0), 1, stem=8)


def segformer(large: bool) -> nn.Module:
    with torchvision_declared():
        smp = pytest.importorskip("segmentation_models_pytorch", exc_type=ImportError)
        channels = {} if large else {"decoder_segmentation_channels": 16}
        net = smp.Segformer("resnet18", encoder_weights=None, classes=CLASSES, **channels)
    net.requires_divisible_input_shape = False
    return net


def fcn(large: bool) -> nn.Module:
    with torchvision_declared():
        pytest.importorskip("torchvision", exc_type=ImportError)
        from torchvision.models._utils import IntermediateLayerGetter
        from torchvision.models.resnet import Bottleneck, ResNet
        from torchvision.models.segmentation import fcn_resnet50
        from torchvision.models.segmentation.fcn import FCN, FCNHead

        if large:
            net = fcn_resnet50(weights=None, weights_backbone=None, num_classes=CLASSES)
        else:
            backbone = ResNet(Bottleneck, [1] * 4, width_per_group=8, replace_stride_with_dilation=[False, True, True])
            net = FCN(IntermediateLayerGetter(backbone, {"layer4": "out"}), FCNHead(2048, CLASSES))
    return Out(net)


class Out(nn.Module):
    """The map of classes alone, of the dictionary that torchvision's networks give."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor) -> Tensor:
        return self.net(image)["out"]


POSITIONED: dict[str, Callable[[bool], nn.Module]] = {
    "unet_to_skip": unet_to_skip,
    "unet_aligned": unet_aligned,
    "unet_padded": unet_padded,
    "hrnet": hrnet,
    "segformer": segformer,
    "fcn": fcn,
}


def balanced(net: nn.Module) -> nn.Module:
    """Shift the last convolution, so that every class is found somewhere."""
    last = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d)][-1]
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        scores = net(torch.rand(1, 3, 96, 96, generator=generator))
        if last.bias is None:
            last.bias = nn.Parameter(torch.zeros(scores.shape[1]))
        last.bias -= scores.mean((0, 2, 3))
    return net


@cache
def positioned_onnx(name: str, exporter: Exporter, large: bool = False) -> bytes:
    """The named network with free batch, height and width."""
    torch.manual_seed(0)
    net = balanced(random_weights(POSITIONED[name](large), seed=0))
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export_onnx(net, buffer, 3, (100, 131), exporter=exporter)
    return buffer.getvalue()
