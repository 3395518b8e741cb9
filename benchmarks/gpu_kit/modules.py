"""The networks of the checks as torch modules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from benchmarks.gpu_kit.network_names import IN_PASSES, LARGEST_INTEGER, is_integer
from benchmarks.gpu_kit.rehearsal import rehearsing
from benchmarks.networks import CHANNELS, CLASSES, balanced, exported
from models.fc_densenet import FCDenseNet, fc_densenet
from models.integer_weights import integer_weights
from models.resnet_unet import ResNetUNet
from models.unet import UNet

__all__ = ["exported", "module"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One network. ``make`` and ``make_small``, for rehearsals, build the module with torch's default weights."""

    make: Callable[[], nn.Module]
    make_small: Callable[[], nn.Module]


def _unet(features: int) -> Subject:
    return Subject(
        make=lambda: UNet(CHANNELS, CLASSES, features=features, depth=4),
        make_small=lambda: UNet(CHANNELS, CLASSES, features=4, depth=2),
    )


class WithStatistics(nn.Module):
    """Three scales; every normalisation and every gate asks for the whole map."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.first, self.second = _normed(CHANNELS, features), _normed(features, 2 * features)
        self.third, self.joined = _normed(2 * features, 4 * features), _normed(7 * features, features)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(4 * features, features, 1), nn.ReLU(),
            nn.Conv2d(features, 4 * features, 1), nn.Sigmoid(),
        )  # fmt: skip
        self.down, self.up = nn.MaxPool2d(2), nn.Upsample(scale_factor=2)
        self.head = nn.Conv2d(features, CLASSES, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        first = self.first(image)
        second = self.second(self.down(first))
        third = self.third(self.down(second))
        third = third * self.gate(third)
        joined = torch.cat([first, self.up(torch.cat([second, self.up(third)], 1))], 1)
        return self.head(self.joined(joined))


def _normed(before: int, after: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(before, after, 3, padding=1), nn.InstanceNorm2d(after, affine=True), nn.ReLU())


DENSENET = Subject(
    make=lambda: fc_densenet(56, CHANNELS, CLASSES),
    make_small=lambda: FCDenseNet(CHANNELS, CLASSES, layers=(2, 2, 2), growth=4, features=8),
)
SUBJECTS = {
    "U-Net 16": _unet(16),
    "U-Net 32": _unet(32),
    "U-Net 64": _unet(64),
    "FC-DenseNet-56": DENSENET,
    "ResNet U-Net": Subject(
        make=lambda: ResNetUNet(CHANNELS, CLASSES),
        make_small=lambda: ResNetUNet(CHANNELS, CLASSES, features=8, blocks=(1, 1)),
    ),
    IN_PASSES: Subject(make=lambda: WithStatistics(32), make_small=lambda: WithStatistics(4)),
    "U-Net 16 integer": _unet(16),
    "FC-DenseNet-56 integer": DENSENET,
    "ResNet U-Net integer": Subject(
        make=lambda: ResNetUNet(CHANNELS, CLASSES, up="nearest"),
        make_small=lambda: ResNetUNet(CHANNELS, CLASSES, features=8, blocks=(1, 1), up="nearest"),
    ),
}


def module(name: str) -> nn.Module:
    """Return the network as a torch module on the CPU, in eval mode. Raises KeyError for the trained one, which has
    none.
    """
    subject = SUBJECTS[name]
    torch.manual_seed(0)
    made = subject.make_small() if rehearsing() else subject.make()
    if is_integer(name):
        return integer_weights(made, 0, channels=CHANNELS, size=(128, 128), largest_input=LARGEST_INTEGER)
    return balanced(made)
