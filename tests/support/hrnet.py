"""HRNet for segmentation (Sun et al. 2019, arXiv 1904.04514): HRNetV2 and its plain head, and one with object context.

``H`` and ``W`` are those of the image. Maps of 1/4, 1/8, 1/16 and 1/32 of its size are kept side by side and exchanged;
a map is brought to the size of a larger one by interpolation *to that size*, so that images of any size go through.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate


def convolved(channels: int, made: int, kernel: int = 3, stride: int = 1, *, relu: bool = True) -> nn.Sequential:
    """Convolution, batch normalisation and, optionally, ReLU."""
    layers: list[nn.Module] = [
        nn.Conv2d(channels, made, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(made),
    ]
    return nn.Sequential(*layers, nn.ReLU()) if relu else nn.Sequential(*layers)


class Residual(nn.Module):
    """Two 3x3 convolutions, or a bottleneck of three, beside the identity."""

    def __init__(self, channels: int, made: int, *, bottleneck: bool = False) -> None:
        super().__init__()
        if bottleneck:
            inner = made // 4
            self.body = nn.Sequential(
                convolved(channels, inner, 1), convolved(inner, inner), convolved(inner, made, 1, relu=False)
            )
        else:
            self.body = nn.Sequential(convolved(channels, made), convolved(made, made, relu=False))
        self.beside = nn.Identity() if channels == made else convolved(channels, made, 1, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.beside(x))


class Exchange(nn.Module):
    """Residual blocks on every map, then each map becomes the sum of all, brought to its size and channels."""

    def __init__(self, widths: list[int], blocks: int, *, align_corners: bool) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.branches = nn.ModuleList(
            nn.Sequential(*(Residual(width, width) for _ in range(blocks))) for width in widths
        )
        self.paths = nn.ModuleList(
            nn.ModuleList(self._path(widths, of, to) for of in range(len(widths))) for to in range(len(widths))
        )

    @staticmethod
    def _path(widths: list[int], of: int, to: int) -> nn.Module:
        if of == to:
            return nn.Identity()
        if of > to:
            return convolved(widths[of], widths[to], 1, relu=False)
        halvings = [convolved(widths[of], widths[of], stride=2) for _ in range(to - of - 1)]
        return nn.Sequential(*halvings, convolved(widths[of], widths[to], stride=2, relu=False))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        maps = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        return [torch.relu(self._sum(maps, to)) for to in range(len(maps))]

    def _sum(self, maps: list[Tensor], to: int) -> Tensor:
        total = None
        for of, x in enumerate(maps):
            moved = self.paths[to][of](x)
            if of > to:
                moved = resized(moved, maps[to], align_corners=self.align_corners)
            total = moved if total is None else total + moved
        assert total is not None
        return total


def resized(x: Tensor, like: Tensor, *, align_corners: bool) -> Tensor:
    return interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=align_corners)


class ObjectContext(nn.Module):
    """A head with object context (Yuan et al. 2020, arXiv 1909.11065): (N, C, H, W) -> logits (N, K, H, W).

    Each class is the mean of all pixels, weighted by a softmax of its scores over them; each pixel is joined with the
    classes that it is like.
    """

    def __init__(self, channels: int, classes: int, inner: int) -> None:
        super().__init__()
        self.inner = inner
        self.regions = nn.Sequential(convolved(channels, channels, 1), nn.Conv2d(channels, classes, 1))
        self.pixels = convolved(channels, 2 * inner)
        self.query = nn.Sequential(convolved(2 * inner, inner, 1), convolved(inner, inner, 1))
        self.key = nn.Sequential(convolved(2 * inner, inner, 1), convolved(inner, inner, 1))
        self.value = convolved(2 * inner, inner, 1)
        self.enlarge = convolved(inner, 2 * inner, 1)
        self.join = convolved(4 * inner, 2 * inner, 1)
        self.head = nn.Conv2d(2 * inner, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        regions, pixels = self.regions(x), self.pixels(x)
        batch, classes, height, width = regions.shape
        weights = torch.softmax(regions.view(batch, classes, -1), dim=2)
        means = torch.matmul(weights, pixels.view(batch, pixels.size(1), -1).permute(0, 2, 1))
        objects = means.permute(0, 2, 1).unsqueeze(3)
        query = self.query(pixels).view(batch, self.inner, -1).permute(0, 2, 1)
        key = self.key(objects).view(batch, self.inner, -1)
        value = self.value(objects).view(batch, self.inner, -1).permute(0, 2, 1)
        alike = torch.softmax(torch.matmul(query, key) * self.inner**-0.5, dim=-1)
        context = torch.matmul(alike, value).permute(0, 2, 1).contiguous().view(batch, self.inner, height, width)
        logits: Tensor = self.head(self.join(torch.cat([self.enlarge(context), pixels], dim=1)))
        return logits


class HRNet(nn.Module):
    """(N, 3, H, W) float32 -> logits (N, K, H, W); H and W are free.

    ``width`` is that of the largest map (18, 32 or 48 in print), ``modules`` the exchanges in stages 2, 3 and 4 (1, 4
    and 3 in print), of ``blocks`` (4) residual blocks each.
    """

    def __init__(
        self,
        classes: int,
        width: int = 18,
        modules: tuple[int, int, int] = (1, 4, 3),
        blocks: int = 4,
        *,
        stem: int = 64,
        align_corners: bool = True,
    ) -> None:
        super().__init__()
        self.align_corners = align_corners
        widths = [width * 2**level for level in range(4)]
        self.stem = nn.Sequential(convolved(3, stem, stride=2), convolved(stem, stem, stride=2))
        sizes = [stem, *([4 * stem] * blocks)]
        self.first = nn.Sequential(*(Residual(a, b, bottleneck=True) for a, b in pairwise(sizes)))
        self.enter = convolved(4 * stem, width)
        self.halve = nn.ModuleList(
            [
                convolved(4 * stem, widths[1], stride=2),
                convolved(widths[1], widths[2], stride=2),
                convolved(widths[2], widths[3], stride=2),
            ]
        )
        self.stages = nn.ModuleList(
            nn.ModuleList(Exchange(widths[: level + 2], blocks, align_corners=align_corners) for _ in range(count))
            for level, count in enumerate(modules)
        )
        self.head: nn.Module = nn.Sequential(convolved(sum(widths), sum(widths), 1), nn.Conv2d(sum(widths), classes, 1))

    def forward(self, image: Tensor) -> Tensor:
        x = self.first(self.stem(image))
        maps = [self.enter(x)]
        for level, stage in enumerate(self.stages):
            maps = [*maps, self.halve[level](x if level == 0 else maps[-1])]
            for exchange in stage:
                maps = exchange(maps)
        joined = torch.cat([maps[0], *(resized(x, maps[0], align_corners=self.align_corners) for x in maps[1:])], dim=1)
        logits: Tensor = resized(self.head(joined), image, align_corners=self.align_corners)
        return logits
