"""Small networks with attention in windows, as Swin (Liu et al. 2021) and MaxViT (Tu et al. 2022) have it."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from exactile_converters.torch_export import Exporter, export_onnx
from tests.support.nets import random_weights

Mask = Literal["added", "infinite", "chosen", "none", "one row less", "weak", "last row"]
"""How attention between opposite edges is masked.

Three do not keep them apart; the last one masks the last row of the image, whether windows are shifted or not.
"""


def windows_of(x: Tensor, size: int) -> Tensor:
    """(B, H, W, C) -> (B * windows, size * size, C)."""
    batch, height, width, channels = x.shape
    x = x.view(batch, height // size, size, width // size, size, channels)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, size * size, channels)


def map_of(windows: Tensor, size: int, height: int, width: int) -> Tensor:
    """(B * windows, size * size, C) -> (B, H, W, C)."""
    x = windows.view(-1, height // size, width // size, size, size, windows.shape[-1])
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, height, width, windows.shape[-1])


@dataclass(frozen=True, slots=True)
class Windows:
    """Of ``size`` by ``size``, shifted by ``shift`` rows and columns."""

    size: int
    shift: int = 0
    mask: Mask = "added"

    def regions(self, rows: Tensor | int) -> Tensor:
        """Along one axis, for each row of the shifted map: what it may attend to bears the same number."""
        places = torch.arange(rows)
        if self.mask == "last row":
            return (places >= rows - 1).to(torch.int64)
        moved = self.shift - 1 if self.mask == "one row less" else self.shift
        return (places >= rows - self.size).to(torch.int64) + (places >= rows - moved).to(torch.int64)

    def scores_mask(self, height: int, width: int) -> Tensor:
        """(windows, size * size, size * size): True where attention is masked."""
        marks = self.regions(height)[:, None] * 3 + self.regions(width)[None]
        marks = windows_of(marks[None, :, :, None], self.size)[..., 0]
        return marks[:, None, :] != marks[:, :, None]


class WindowAttention(nn.Module):
    """Two heads, a bias for the relative position, and a mask where windows are shifted."""

    def __init__(self, channels: int, windows: Windows) -> None:
        super().__init__()
        self.windows, self.heads = windows, 2
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        area = windows.size**2
        self.bias = nn.Parameter(torch.randn(self.heads, area, area))

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        count, area, channels = x.shape
        qkv = self.qkv(x).reshape(count, area, 3, self.heads, channels // self.heads).permute(2, 0, 3, 1, 4)
        query, key, value = qkv[0], qkv[1], qkv[2]
        scores = (query * (channels // self.heads) ** -0.5) @ key.transpose(-2, -1) + self.bias
        if self.windows.mask == "last row" or (self.windows.shift and self.windows.mask != "none"):
            scores = self.masked(scores, self.windows.scores_mask(height, width))
        found = torch.softmax(scores, -1) @ value
        return self.out(found.transpose(1, 2).reshape(count, area, channels))

    def masked(self, scores: Tensor, mask: Tensor) -> Tensor:
        """The windows of each image of a batch have the same masks."""
        (count, heads, area, _), windows = scores.shape, mask.shape[0]
        scores = scores.view(count // windows, windows, heads, area, area)
        mask = mask[None, :, None]
        if self.windows.mask == "chosen":
            return scores.masked_fill(mask, float("-inf")).view(-1, heads, area, area)
        number = {"infinite": float("-inf"), "weak": -5.0}.get(self.windows.mask, -100.0)
        return (scores + torch.zeros(mask.shape).masked_fill(mask, number)).view(-1, heads, area, area)


class SwinBlock(nn.Module):
    """Pads to whole windows, shifts, attends, shifts back and crops; then a perceptron for each position."""

    def __init__(self, channels: int, windows: Windows) -> None:
        super().__init__()
        self.windows = windows
        self.before, self.after = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.attention = WindowAttention(channels, windows)
        self.perceptron = nn.Sequential(nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        size, shift = self.windows.size, self.windows.shift
        height, width = x.shape[1], x.shape[2]
        padded = functional.pad(
            self.before(x), (0, 0, 0, (size - width % size) % size, 0, (size - height % size) % size)
        )
        rows, columns = padded.shape[1], padded.shape[2]
        if shift:
            padded = torch.roll(padded, (-shift, -shift), (1, 2))
        found = map_of(self.attention(windows_of(padded, size), rows, columns), size, rows, columns)
        if shift:
            found = torch.roll(found, (shift, shift), (1, 2))
        x = x + found[:, :height, :width]
        return x + self.perceptron(self.after(x))


class Swin(nn.Module):
    """A strided convolution, a block for each of ``shifts``, and a map as large as the image, of three classes."""

    def __init__(self, patch: int = 1, size: int = 4, mask: Mask = "added", shifts: Sequence[int] = (0, 2)) -> None:
        super().__init__()
        self.embedding = nn.Conv2d(3, 8, patch, stride=patch)
        self.blocks = nn.ModuleList(SwinBlock(8, Windows(size, shift, mask)) for shift in shifts)
        self.head = nn.ConvTranspose2d(8, 3, patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embedding(x).permute(0, 2, 3, 1)
        for block in self.blocks:
            x = block(x)
        return self.head(x.permute(0, 3, 1, 2))


class SwinUpsampled(Swin):
    """Its classes are resized to the size of the image, with corners aligned."""

    def __init__(self) -> None:
        super().__init__(patch=2)
        self.head = nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return functional.interpolate(super().forward(x), size=x.shape[2:], mode="bilinear", align_corners=True)


class MaxViT(nn.Module):
    """A convolution, then attention in blocks; with ``grid``, also between positions at equal distances."""

    def __init__(self, size: int = 4, *, grid: bool = False) -> None:
        super().__init__()
        self.size, self.grid = size, grid
        self.convolution = nn.Conv2d(3, 8, 3, padding=1)
        self.attention = WindowAttention(8, Windows(size))
        self.head = nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.convolution(x).permute(0, 2, 3, 1)
        height, width, size = x.shape[1], x.shape[2], self.size
        x = x + map_of(self.attention(windows_of(x, size), height, width), size, height, width)
        if self.grid:
            x = x + self.in_grid(x)
        return self.head(x.permute(0, 3, 1, 2))

    def in_grid(self, x: Tensor) -> Tensor:
        (_, height, width, channels), size = x.shape, self.size
        cells = x.view(-1, size, height // size, size, width // size, channels).permute(0, 2, 4, 1, 3, 5)
        found = self.attention(cells.reshape(-1, size * size, channels), height, width)
        cells = found.view(-1, height // size, width // size, size, size, channels).permute(0, 3, 1, 4, 2, 5)
        return cells.reshape(-1, height, width, channels)


def exported(module: nn.Module, exporter: Exporter = "torchscript", *, stride: int = 1) -> bytes:
    """Dynamo asks for the ``stride`` that sizes have in common."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export_onnx(random_weights(module, 0), buffer, 3, (32, 40), exporter=exporter, stride=stride)
    return buffer.getvalue()
