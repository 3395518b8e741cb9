"""Networks of the libraries that users build with, which look at the whole image: small, or as they are used.

MONAI, nnU-Net (dynamic-network-architectures) and torchvision. HRNet with object context is written from its paper.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tests.support.hrnet import HRNet, ObjectContext, convolved
from tests.support.torchvision_operators import torchvision_declared

CLASSES = 3

Widths = tuple[int, ...]
Network = Callable[[Widths], nn.Module]


def with_seed(make: Callable[[], nn.Module]) -> nn.Module:
    """In evaluation mode, with weights from a seed; scales, biases and running statistics are not 1 and 0."""
    torch.manual_seed(3)
    module = make().eval()
    for name, parameter in module.named_parameters():
        if parameter.ndim == 1 and parameter.numel() > CLASSES:
            nn.init.normal_(parameter, 0.1 if name.endswith("bias") else 0.8, 0.3)
    for one in module.modules():
        if isinstance(one, nn.BatchNorm2d) and one.running_mean is not None and one.running_var is not None:
            one.running_mean.normal_(0, 0.2)
            one.running_var.uniform_(0.5, 2)
    return module


def monai_unet(widths: Widths) -> nn.Module:
    from monai.networks.nets import UNet

    return UNet(2, 3, CLASSES, channels=widths, strides=[2] * (len(widths) - 1), num_res_units=2)


def monai_unet_grouped(widths: Widths) -> nn.Module:
    """Without residual units: for odd sizes its result is larger than the image."""
    from monai.networks.nets import UNet

    norm = ("group", {"num_groups": 4})
    return UNet(2, 3, CLASSES, channels=widths, strides=[2] * (len(widths) - 1), norm=norm)


def monai_basic_unet(widths: Widths) -> nn.Module:
    from monai.networks.nets import BasicUNet

    return BasicUNet(2, 3, CLASSES, features=(*widths, widths[0]))


def monai_basic_unet_shuffled(widths: Widths) -> nn.Module:
    from monai.networks.nets import BasicUNet

    return BasicUNet(2, 3, CLASSES, features=(*widths, widths[0]), upsample="pixelshuffle")


def monai_segresnet(widths: Widths) -> nn.Module:
    from monai.networks.nets import SegResNet

    downs = tuple(2 if index else 1 for index in range(len(widths)))
    return SegResNet(2, widths[0], 3, CLASSES, blocks_down=downs, blocks_up=(1,) * (len(widths) - 1))


def monai_attention_unet(widths: Widths) -> nn.Module:
    from monai.networks.nets import AttentionUnet

    return AttentionUnet(2, 3, CLASSES, channels=widths, strides=[2] * (len(widths) - 1))


def monai_dynunet(widths: Widths) -> nn.Module:
    from monai.networks.nets import DynUNet

    halved = [2] * (len(widths) - 1)
    norm = ("INSTANCE", {"affine": True})
    return DynUNet(2, 3, CLASSES, [3] * len(widths), [1, *halved], halved, filters=widths, norm_name=norm)


def _nnunet(widths: Widths) -> dict[str, Any]:
    """As nnU-Net's planner configures it."""
    return {
        "input_channels": 3, "n_stages": len(widths), "features_per_stage": list(widths), "conv_op": nn.Conv2d,
        "kernel_sizes": 3, "strides": [1, *[2] * (len(widths) - 1)], "num_classes": CLASSES, "conv_bias": True,
        "norm_op": nn.InstanceNorm2d, "norm_op_kwargs": {"eps": 1e-5, "affine": True}, "nonlin": nn.LeakyReLU,
        "nonlin_kwargs": {"inplace": True},
    }  # fmt: skip


def nnunet_plain(widths: Widths) -> nn.Module:
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    stages = len(widths)
    return PlainConvUNet(n_conv_per_stage=[2] * stages, n_conv_per_stage_decoder=[2] * (stages - 1), **_nnunet(widths))


def nnunet_residual(widths: Widths) -> nn.Module:
    from dynamic_network_architectures.architectures.unet import ResidualEncoderUNet

    blocks = [1, *[2] * (len(widths) - 1)]
    ups = [1] * (len(widths) - 1)
    return ResidualEncoderUNet(n_blocks_per_stage=blocks, n_conv_per_stage_decoder=ups, **_nnunet(widths))


class Scores(nn.Module):
    """The scores of a segmentation network of torchvision."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.network(x)["out"]
        return scores


def torchvision_deeplabv3(widths: Widths) -> nn.Module:
    """Its head, with rates in proportion to a small backbone."""
    with torchvision_declared():
        from torchvision.models._utils import IntermediateLayerGetter
        from torchvision.models.segmentation.deeplabv3 import DeepLabHead, DeepLabV3
    pairs = zip((3, *widths), widths, strict=False)
    backbone = nn.Sequential(*(convolved(a, b, stride=2) for a, b in pairs))
    taken = IntermediateLayerGetter(backbone, {str(len(widths) - 1): "out"})
    return Scores(DeepLabV3(taken, DeepLabHead(widths[-1], CLASSES, atrous_rates=(1, 2, 3))))


def torchvision_lraspp(widths: Widths) -> nn.Module:
    with torchvision_declared():
        from torchvision.models._utils import IntermediateLayerGetter
        from torchvision.models.segmentation.lraspp import LRASPP
    pairs = zip((3, *widths), widths, strict=False)
    backbone = nn.Sequential(*(convolved(a, b, stride=2) for a, b in pairs))
    taken = IntermediateLayerGetter(backbone, {"0": "low", str(len(widths) - 1): "high"})
    return Scores(LRASPP(taken, widths[0], widths[-1], CLASSES, inter_channels=8))


def of_torchvision(name: str) -> Network:
    """A network of torchvision as it is; ``widths`` are its own."""

    def make(_widths: Widths) -> nn.Module:
        with torchvision_declared():
            from torchvision.models import segmentation
        return Scores(getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=CLASSES))

    return make


def object_context(widths: Widths) -> nn.Module:
    """The head of HRNet with object context, on two convolutions."""
    channels = widths[0]
    return nn.Sequential(convolved(3, channels, stride=2), ObjectContext(channels, CLASSES, channels))


def hrnet_ocr(widths: Widths) -> nn.Module:
    network = HRNet(CLASSES, width=widths[0], modules=(1, 1, 1), blocks=1, stem=16)
    network.head = ObjectContext(15 * widths[0], CLASSES, 4 * widths[0])
    return network


SMALL: Mapping[str, tuple[Network, Widths]] = {
    "monai_unet": (monai_unet, (4, 8, 12)),
    "monai_unet_grouped": (monai_unet_grouped, (4, 8, 12)),
    "monai_basic_unet": (monai_basic_unet, (4, 4, 8, 8, 12)),
    "monai_basic_unet_shuffled": (monai_basic_unet_shuffled, (4, 4, 8, 8, 12)),
    "monai_segresnet": (monai_segresnet, (8, 16)),
    "monai_attention_unet": (monai_attention_unet, (4, 8, 12)),
    "monai_dynunet": (monai_dynunet, (4, 8, 12)),
    "nnunet_plain": (nnunet_plain, (4, 8, 12)),
    "nnunet_residual": (nnunet_residual, (4, 8, 12)),
    "torchvision_deeplabv3": (torchvision_deeplabv3, (8, 8, 12)),
    "torchvision_lraspp": (torchvision_lraspp, (8, 8, 12)),
    "object_context": (object_context, (8,)),
    "hrnet_ocr": (hrnet_ocr, (2,)),
}

USUAL: Mapping[str, tuple[Network, Widths]] = {
    "monai_unet": (monai_unet, (16, 32, 64, 128)),
    "monai_unet_grouped": (monai_unet_grouped, (16, 32, 64, 128)),
    "monai_basic_unet": (monai_basic_unet, (16, 16, 32, 64, 128)),
    "monai_segresnet": (monai_segresnet, (8, 16, 32, 64)),
    "monai_attention_unet": (monai_attention_unet, (16, 32, 64)),
    "monai_dynunet": (monai_dynunet, (16, 32, 64, 128)),
    "nnunet_plain": (nnunet_plain, (16, 32, 64, 128, 256)),
    "nnunet_residual": (nnunet_residual, (16, 32, 64, 128, 256)),
    "deeplabv3_mobilenet_v3_large": (of_torchvision("deeplabv3_mobilenet_v3_large"), ()),
    "lraspp_mobilenet_v3_large": (of_torchvision("lraspp_mobilenet_v3_large"), ()),
    "hrnet_ocr": (hrnet_ocr, (8,)),
}
"""As large as documents quote them."""

PACKAGES = {"monai": "monai", "nnunet": "dynamic-network-architectures", "torchvision": "torchvision"}
"""What a network's name begins with, and the package it comes from."""


def small(name: str) -> nn.Module:
    make, widths = SMALL[name]
    return with_seed(lambda: make(widths))


def usual(name: str) -> nn.Module:
    make, widths = USUAL[name]
    return with_seed(lambda: make(widths))
