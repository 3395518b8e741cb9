"""U-Net (Ronneberger et al. 2015, arXiv 1505.04597) with "same" padding, in the variants met in practice.

The letters of the shape comments, here and in the neighbouring files:

- ``N`` images in the batch, ``C`` channels, ``H`` rows, ``W`` columns of the current tensor;
- ``f`` features at full resolution, ``K`` classes.

How the decoder doubles the resolution decides how far the network sees:

==============  ======================================  ==========================
``up``          operator                                halo at depth 4, pixels
==============  ======================================  ==========================
``transpose2``  2x2 transposed convolution, stride 2    94 on every side
``transpose3``  3x3 transposed convolution, stride 2    94 top/left, 110 bottom/right
``bilinear``    interpolation between pixel centres     110 on every side
``nearest``     repetition                              94 on every side
==============  ======================================  ==========================
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

Up = Literal["transpose2", "transpose3", "bilinear", "nearest"]


class ConvBlock(nn.Sequential):
    """Two 3x3 convolutions, each with (optionally) batch normalisation, then ReLU: (N, C, H, W) -> (N, f, H, W)."""

    def __init__(self, in_channels: int, features: int, *, batch_norm: bool = True) -> None:
        layers: list[nn.Module] = []
        for channels in (in_channels, features):
            layers.append(nn.Conv2d(channels, features, 3, padding=1, bias=not batch_norm))
            if batch_norm:
                layers.append(nn.BatchNorm2d(features))
            layers.append(nn.ReLU())
        super().__init__(*layers)


class UpBlock(nn.Module):
    """Double the resolution, join the skip connection, convolve.

    (N, 2f, H/2, W/2) and the skip (N, f, H, W) -> (N, f, H, W). ``sizes_from_skip`` interpolates to the skip's
    measured size instead of by the factor 2: what many implementations do, and what puts Shape operators in an export.
    """

    def __init__(self, features: int, up: Up, *, batch_norm: bool, sizes_from_skip: bool) -> None:
        super().__init__()
        self.mode = up if up in {"bilinear", "nearest"} else None
        self.sizes_from_skip = sizes_from_skip
        if up == "transpose2":
            self.up: nn.Module = nn.ConvTranspose2d(2 * features, features, 2, stride=2)
        elif up == "transpose3":
            self.up = nn.ConvTranspose2d(2 * features, features, 3, stride=2, padding=1, output_padding=1)
        else:
            self.up = nn.Identity()
        joined = 3 * features if self.mode else 2 * features
        self.convs = ConvBlock(joined, features, batch_norm=batch_norm)

    def forward(self, below: Tensor, skip: Tensor) -> Tensor:
        above = self.up(below)
        if self.mode:
            centres = False if self.mode == "bilinear" else None
            if self.sizes_from_skip:
                above = interpolate(above, size=skip.shape[-2:], mode=self.mode, align_corners=centres)
            else:
                above = interpolate(above, scale_factor=2, mode=self.mode, align_corners=centres)
        joined = torch.cat([above, skip], dim=1)  # (N, 2f or 3f, H, W)
        out: Tensor = self.convs(joined)
        return out


class UNet(nn.Module):
    """(N, C, H, W) float32 -> logits (N, K, H, W); H and W must be multiples of ``2**depth``.

    The defaults are the network of Majurski & Bajcsy 2021. Raises ValueError for an unknown ``up``, and for
    ``sizes_from_skip`` with a transposed convolution, which has its own idea of the output size.
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        features: int = 64,
        depth: int = 4,
        *,
        batch_norm: bool = True,
        up: Up = "transpose2",
        sizes_from_skip: bool = False,
    ) -> None:
        super().__init__()
        if up not in {"transpose2", "transpose3", "bilinear", "nearest"}:
            raise ValueError(f"up must be transpose2, transpose3, bilinear or nearest, got {up!r}")
        if sizes_from_skip and up.startswith("transpose"):
            raise ValueError(f"sizes_from_skip needs up='bilinear' or 'nearest', got up={up!r}")
        widths = [features * 2**level for level in range(depth + 1)]
        self.stem = ConvBlock(in_channels, features, batch_norm=batch_norm)
        self.pools = nn.ModuleList(nn.MaxPool2d(2) for _ in range(depth))
        self.downs = nn.ModuleList(ConvBlock(a, b, batch_norm=batch_norm) for a, b in pairwise(widths))
        self.ups = nn.ModuleList(
            UpBlock(width, up, batch_norm=batch_norm, sizes_from_skip=sizes_from_skip)
            for width in reversed(widths[:-1])
        )
        self.head = nn.Conv2d(features, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image)  # (N, f, H, W)
        skips = []
        for pool, down in zip(self.pools, self.downs, strict=True):
            skips.append(x)
            x = down(pool(x))  # level l: (N, f*2^l, H/2^l, W/2^l)
        for up in self.ups:
            x = up(x, skips.pop())
        logits: Tensor = self.head(x)  # (N, K, H, W)
        return logits
