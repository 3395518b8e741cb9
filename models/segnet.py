"""SegNet (Badrinarayanan et al. 2015, arXiv 1511.00561): VGG16's 13 convolutions down, their mirror image up.

Shape letters: ``unet.py``. Halo 186 on every side.

The original puts each value back where its maximum was found (``up='unpool'``). PyTorch 2.13 cannot export that
usefully: the TorchScript exporter stops in ``max_unpool2d`` with a TypeError, and the newer one writes a ScatterND on
flattened positions, which is no local operator any more. ``up='nearest'`` repeats the values instead; it is what
deployed SegNets mostly do, and the default.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn.functional import interpolate, max_unpool2d

Up = Literal["nearest", "unpool"]

CONVS_PER_STAGE = (2, 2, 3, 3, 3)
WIDTH_OF_STAGE = (1, 2, 4, 8, 8)  # times the features: 64, 128, 256, 512, 512 in the original


def stage(in_channels: int, widths: list[int]) -> nn.Sequential:
    """Return 3x3 convolutions with batch normalisation and ReLU: (N, C, H, W) -> (N, widths[-1], H, W)."""
    layers: list[nn.Module] = []
    for before, width in zip([in_channels, *widths], widths, strict=False):
        layers += [nn.Conv2d(before, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers)


class SegNet(nn.Module):
    """(N, C, H, W) float32 -> logits (N, K, H, W); H and W must be multiples of 32."""

    def __init__(self, in_channels: int, classes: int, *, features: int = 64, up: Up = "nearest") -> None:
        super().__init__()
        if up not in {"nearest", "unpool"}:
            raise ValueError(f"up must be nearest or unpool, got {up!r}")
        self.up = up
        self.pool = nn.MaxPool2d(2, return_indices=up == "unpool")
        widths = [factor * features for factor in WIDTH_OF_STAGE]
        self.downs, self.ups = nn.ModuleList(), nn.ModuleList()
        before = in_channels
        for count, width in zip(CONVS_PER_STAGE, widths, strict=True):
            self.downs.append(stage(before, [width] * count))
            before = width
        # The last convolution of a stage going up narrows to the width of the next stage.
        afters = [widths[0], *widths[:-1]]
        for count, width, after in reversed(list(zip(CONVS_PER_STAGE, widths, afters, strict=True))):
            self.ups.append(stage(width, [width] * (count - 1) + [after]))
        self.head = nn.Conv2d(features, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        x, indices = image, []
        for down in self.downs:
            x = self.pool(down(x))  # stage s: (N, width, H/2^s, W/2^s)
            if self.up == "unpool":
                x, index = x
                indices.append(index)
        for up in self.ups:
            if self.up == "unpool":
                x = max_unpool2d(x, indices.pop(), (2, 2))
            else:
                x = interpolate(x, scale_factor=2, mode="nearest")
            x = up(x)
        logits: Tensor = self.head(x)  # (N, K, H, W)
        return logits
