"""Other ways to run a torch module over a large image on the same GPU: tiles, tiles with a halo, sliding windows.

Float32 throughout (TF32 is off), cuDNN's defaults, contiguous memory. The image goes to the GPU tile by tile, labels
come back once: that is how these are written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.gpu_kit.rehearsal import rehearsing

Labels = NDArray[np.uint8]
DIVISOR = 255
WINDOW_BATCH = 4
SIGMA = 0.125
"""Of a window's side, as MONAI's Gaussian weights have it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiled:
    """Tiles of ``tile`` pixels; a ``halo`` is cut off, but not at the image's edges. 0: naive tiles.

    With a halo on the network's stride these are those of Majurski & Bajcsy (2021).
    """

    tile: int
    halo: int = 0

    @property
    def name(self) -> str:
        return f"tiles of {self.tile}" + (f", halo {self.halo}" if self.halo else ", no halo")

    def labels(self, module: nn.Module, image: Tensor) -> Tensor:
        """Compute (H, W, C) uint8 on the host -> (H, W) uint8 on the GPU."""
        height, width = image.shape[:2]
        found = torch.empty((height, width), dtype=torch.uint8, device=device())
        zone = self.tile - 2 * self.halo
        for y, x in product(range(0, height, zone), range(0, width, zone)):
            top, left = max(0, y - self.halo), max(0, x - self.halo)
            bottom, right = min(height, y + zone), min(width, x + zone)
            scores = module(seen(image[top : bottom + self.halo, left : right + self.halo][None]))
            found[y:bottom, x:right] = scores[0, :, y - top : bottom - top, x - left : right - left].argmax(0)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Blended:
    """Windows that overlap by a share of their side, scores added up by weights, as MONAI's sliding windows."""

    window: int
    overlap: float
    gaussian: bool

    @property
    def name(self) -> str:
        return f"windows of {self.window}, overlap {self.overlap}, {'Gaussian' if self.gaussian else 'equal'} weights"

    def labels(self, module: nn.Module, image: Tensor) -> Tensor:
        height, width = image.shape[:2]
        side = min(self.window, height, width)
        weights = self._weights(side)
        sums: Tensor | None = None
        total = torch.zeros((height, width), device=device())
        for batch in batches(self._corners(height, width, side), WINDOW_BATCH):
            scores = module(seen(torch.stack([image[y : y + side, x : x + side] for y, x in batch])))
            if sums is None:
                sums = torch.zeros((scores.shape[1], height, width), device=device())
            for (y, x), each in zip(batch, scores, strict=True):
                sums[:, y : y + side, x : x + side] += each * weights
                total[y : y + side, x : x + side] += weights
        assert sums is not None
        return (sums / total).argmax(0).to(torch.uint8)

    def _corners(self, height: int, width: int, side: int) -> list[tuple[int, int]]:
        step = int(side * (1 - self.overlap))
        starts = [sorted({*range(0, size - side, step), size - side}) for size in (height, width)]
        return list(product(*starts))

    def _weights(self, side: int) -> Tensor:
        if not self.gaussian:
            return torch.ones((side, side), device=device())
        place = torch.arange(side, device=device(), dtype=torch.float32) - (side - 1) / 2
        line = torch.exp(-0.5 * (place / (SIGMA * side)) ** 2)
        weights: Tensor = torch.outer(line, line).clamp_min(1e-3)
        return weights


Peer = Tiled | Blended


def peers(tiles: Sequence[int], halo: int) -> list[Peer]:
    """Return naive tiles, tiles with a halo, and windows with MONAI's defaults and with nnU-Net's."""
    window = tiles[0]
    return [
        *(Tiled(tile=tile) for tile in tiles),
        *(Tiled(tile=tile, halo=halo) for tile in tiles),
        Blended(window=window, overlap=0.25, gaussian=False),
        Blended(window=window, overlap=0.5, gaussian=True),
    ]


@torch.inference_mode()
def segment(peer: Peer, module: nn.Module, image: NDArray[np.uint8]) -> Labels:
    """Compute (H, W, C) uint8 in host memory -> labels (H, W) in host memory."""
    labels: Labels = peer.labels(module, torch.from_numpy(image)).cpu().numpy()
    return labels


def on_device(module: nn.Module) -> nn.Module:
    """Return the module on the GPU, float32 as it is written."""
    if rehearsing():
        torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    return module.to(device()).eval()


def device() -> torch.device:
    return torch.device("cpu" if rehearsing() else "cuda")


def seen(tiles: Tensor) -> Tensor:
    """Convert (N, H, W, C) uint8 on the host -> what the network sees, (N, C, H, W) float32 on the GPU."""
    return (tiles.to(device()).permute(0, 3, 1, 2).float() / DIVISOR).contiguous()


def batches(corners: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(corners), size):
        yield corners[start : start + size]
