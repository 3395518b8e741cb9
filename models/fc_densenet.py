"""FC-DenseNet, the "Tiramisu" (Jegou et al. 2017, arXiv 1611.09326): dense blocks in the shape of a U-Net.

Shape letters: ``unet.py``; ``g`` is the growth, the features each dense layer adds.

The published TensorFlow code doubles the resolution with a 3x3 stride-2 transposed convolution and "same" padding.
TensorFlow then crops one row and one column, at the end, so the network sees further to the top and left:

=====  ==================  =====================  =========================
name   layers per block    halo ``up='same3'``    halo ``up='transpose2'``
=====  ==================  =====================  =========================
56     4                   413 and 381            381
67     5                   508 and 476            476
103    4 5 7 10 12, 15     1147 and 1115          1115
=====  ==================  =====================  =========================
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

Up = Literal["same3", "transpose2"]

LAYERS = {56: (4, 4, 4, 4, 4, 4), 67: (5, 5, 5, 5, 5, 5), 103: (4, 5, 7, 10, 12, 15)}
GROWTH = {56: 12, 67: 16, 103: 16}


class DenseBlock(nn.Module):
    """Layers that each see everything before them: (N, C, H, W) -> the new features alone, (N, layers*g, H, W)."""

    def __init__(self, in_channels: int, layers: int, growth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(in_channels + layer * growth),
                nn.ReLU(),
                nn.Conv2d(in_channels + layer * growth, growth, 3, padding=1, bias=False),
            )
            for layer in range(layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        new = []
        for layer in self.layers:
            new.append(layer(x))
            x = torch.cat([x, new[-1]], dim=1)
        return torch.cat(new, dim=1)


class TransitionDown(nn.Sequential):
    """(N, C, H, W) -> (N, C, H/2, W/2)."""

    def __init__(self, channels: int) -> None:
        super().__init__(
            nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, channels, 1, bias=False), nn.MaxPool2d(2)
        )


class TransitionUp(nn.Module):
    """(N, C, H, W) -> (N, C, 2H, 2W)."""

    def __init__(self, channels: int, up: Up) -> None:
        super().__init__()
        self.crop = up == "same3"
        self.up = nn.ConvTranspose2d(channels, channels, 3 if self.crop else 2, stride=2)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(x)  # same3: (N, C, 2H+1, 2W+1)
        if self.crop:
            x = x[:, :, :-1, :-1]
        out: Tensor = self.relu(x)
        return out


class FCDenseNet(nn.Module):
    """(N, C, H, W) float32 -> logits (N, K, H, W); H and W must be multiples of ``2**(len(layers) - 1)``, that is 32.

    ``layers`` counts the layers of the dense blocks going down, the bottleneck's last; going up mirrors them.
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        *,
        layers: Sequence[int] = LAYERS[56],
        growth: int = 12,
        features: int = 48,
        up: Up = "same3",
    ) -> None:
        super().__init__()
        if up not in {"same3", "transpose2"}:
            raise ValueError(f"up must be same3 or transpose2, got {up!r}")
        *down_layers, bottleneck_layers = layers
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, features, 3, padding=1, bias=False), nn.BatchNorm2d(features), nn.ReLU()
        )
        self.dense_downs, self.downs = nn.ModuleList(), nn.ModuleList()
        channels, skip_channels = features, []
        for count in down_layers:
            self.dense_downs.append(DenseBlock(channels, count, growth))
            channels += count * growth
            skip_channels.append(channels)
            self.downs.append(TransitionDown(channels))
        self.bottleneck = DenseBlock(channels, bottleneck_layers, growth)
        self.ups, self.dense_ups = nn.ModuleList(), nn.ModuleList()
        new_channels = bottleneck_layers * growth
        for count in reversed(down_layers):
            self.ups.append(TransitionUp(new_channels, up))
            self.dense_ups.append(DenseBlock(new_channels + skip_channels.pop(), count, growth))
            new_channels = count * growth
        self.head = nn.Conv2d(new_channels, classes, 1, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image)  # (N, features, H, W)
        skips = []
        for dense, down in zip(self.dense_downs, self.downs, strict=True):
            x = torch.cat([x, dense(x)], dim=1)  # channels grow by layers*g
            skips.append(x)
            x = down(x)
        # Only the new features of a block go up; carrying all of them would let the decoder's width explode.
        new = self.bottleneck(x)  # (N, layers*g, H/32, W/32)
        for up, dense in zip(self.ups, self.dense_ups, strict=True):
            new = dense(torch.cat([up(new), skips.pop()], dim=1))
        logits: Tensor = self.head(new)  # (N, K, H, W)
        return logits


def fc_densenet(name: int, in_channels: int, classes: int, *, up: Up = "same3") -> FCDenseNet:
    """Return the published FC-DenseNet-56, -67 or -103."""
    if name not in LAYERS:
        raise ValueError(f"there is FC-DenseNet-56, -67 and -103, not {name}")
    return FCDenseNet(in_channels, classes, layers=LAYERS[name], growth=GROWTH[name], up=up)
