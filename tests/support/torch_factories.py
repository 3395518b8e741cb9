"""Modules as users bring them, for ``--torch tests.support.torch_factories:NAME``."""

from __future__ import annotations

import torch
from torch import nn

from models.unet import UNet


def unet() -> nn.Module:
    torch.manual_seed(0)
    return UNet(3, 3, features=4, depth=2)


class SeveralOutputs(nn.Module):
    """A dictionary, as torchvision's segmentation models return it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.net, self.aux = UNet(3, 2, features=4, depth=1), nn.Conv2d(3, 2, 1)

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"out": self.net(image), "aux": self.aux(image)}


class InTraining(nn.Module):
    """Random in evaluation mode, too: it cannot be checked."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.conv(image) + torch.rand_like(image[:, :2])


class WithDropout(nn.Module):
    """Convolution, batch normalisation and dropout."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout2d(0.5), nn.Conv2d(8, 2, 1)
        )
        self.body[1].running_mean.uniform_(-1, 1)
        self.body[1].running_var.uniform_(0.5, 2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.body(image)


class Pooled(nn.Module):
    """Takes the mean of the whole image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.conv(image)
        return x * x.mean((2, 3), keepdim=True)


class AddedUp(nn.Module):
    """Not tileable: each column is the sum of all columns before it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        added: torch.Tensor = self.conv(image).cumsum(3)
        return added


def broken() -> nn.Module:
    raise RuntimeError("the weights server is on fire")


not_a_module = dict
