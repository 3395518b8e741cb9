"""A U-Net on a residual encoder in the manner of ResNet-18 (He et al. 2015, arXiv 1512.03385).

Shape letters: ``unet.py``. What is different from a plain U-Net, seen from the geometry: strided 3x3 and 7x7
convolutions and an overlapping 3x3 pooling, so the halo is larger at the top and left than at the bottom and right.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from models.unet import ConvBlock

Up = Literal["bilinear", "nearest"]


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut: (N, C, H, W) -> (N, f, H/stride, W/stride)."""

    def __init__(self, in_channels: int, features: int, *, stride: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(in_channels, features, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(features),
            nn.ReLU(),
            nn.Conv2d(features, features, 3, padding=1, bias=False),
            nn.BatchNorm2d(features),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or in_channels != features:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, features, 1, stride=stride, bias=False), nn.BatchNorm2d(features)
            )
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.branch(x) + self.shortcut(x))
        return out


class ResNetUNet(nn.Module):
    """(N, C, H, W) float32 -> logits (N, K, H, W); H and W must be multiples of ``2**(1 + len(blocks))``, that is 32.

    ``blocks`` counts the residual blocks of each stage. The decoder goes back to full resolution.
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        *,
        features: int = 64,
        blocks: Sequence[int] = (2, 2, 2, 2),
        up: Up = "bilinear",
    ) -> None:
        super().__init__()
        if up not in {"bilinear", "nearest"}:
            raise ValueError(f"up must be bilinear or nearest, got {up!r}")
        self.up = up
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, features, 7, stride=2, padding=3, bias=False), nn.BatchNorm2d(features), nn.ReLU()
        )
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        widths = [features * 2**level for level in range(len(blocks))]
        self.stages = nn.ModuleList()
        for level, (before, width, count) in enumerate(zip([features, *widths], widths, blocks, strict=False)):
            first = ResidualBlock(before, width, stride=2 if level else 1)
            rest = [ResidualBlock(width, width, stride=1) for _ in range(count - 1)]
            self.stages.append(nn.Sequential(first, *rest))
        deepest_first = [*reversed(widths), features]  # the last skip is the stem's
        self.decoders = nn.ModuleList(ConvBlock(below + skip, skip) for below, skip in pairwise(deepest_first))
        self.last = ConvBlock(features, features)
        self.head = nn.Conv2d(features, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image)  # (N, f, H/2, W/2)
        skips = [x]
        x = self.pool(x)  # (N, f, H/4, W/4)
        for residual in self.stages:
            x = residual(x)  # stage s: (N, f*2^s, H/2^(s+2), W/2^(s+2))
            skips.append(x)
        skips.pop()  # the deepest is x itself
        for decoder in self.decoders:
            x = decoder(torch.cat([self.upsample(x), skips.pop()], dim=1))
        logits: Tensor = self.head(self.last(self.upsample(x)))  # (N, K, H, W)
        return logits

    def upsample(self, x: Tensor) -> Tensor:
        """Upsample (N, C, H, W) -> (N, C, 2H, 2W)."""
        centres = False if self.up == "bilinear" else None
        return interpolate(x, scale_factor=2, mode=self.up, align_corners=centres)
