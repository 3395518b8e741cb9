"""Small PyTorch modules in the style of published networks that take statistics of the whole image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.support import attention_modules

WIDTHS = (6, 8, 12)
CLASSES = 3


def normed(channels: int, made: int, stride: int = 1) -> nn.Sequential:
    """Convolution, instance normalisation and leaky ReLU, as in nnU-Net (Isensee et al. 2021)."""
    return nn.Sequential(
        nn.Conv2d(channels, made, 3, stride, 1), nn.InstanceNorm2d(made, affine=True), nn.LeakyReLU(0.01)
    )


class NormedResidual(nn.Module):
    """Two convolutions beside the identity; the normalisation of the second is before the sum."""

    def __init__(self, channels: int, made: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            normed(channels, made, stride), nn.Conv2d(made, made, 3, 1, 1), nn.InstanceNorm2d(made, affine=True)
        )
        beside = [nn.AvgPool2d(stride)] if stride > 1 else []
        self.beside = nn.Sequential(
            *beside, nn.Conv2d(channels, made, 1, bias=False), nn.InstanceNorm2d(made, affine=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        return functional.leaky_relu(self.body(x) + self.beside(x), 0.01)


class EncoderDecoder(nn.Module):
    """nnU-Net: halved by strides, doubled by transposed convolutions of 2 x 2, joined with what was as large."""

    def __init__(
        self,
        block: Callable[[int, int, int], nn.Module],
        up: Callable[[int, int], nn.Module],
        widths: Sequence[int] = WIDTHS,
    ) -> None:
        super().__init__()
        levels = list(zip((3, *widths), widths, strict=False))
        self.down = nn.ModuleList(block(a, b, 2 if index else 1) for index, (a, b) in enumerate(levels))
        self.up = nn.ModuleList(up(b, a) for a, b in pairwise(widths))
        self.join = nn.ModuleList(block(2 * a, a, 1) for a in widths[:-1])
        self.head = nn.Conv2d(widths[0], CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for down in self.down:
            x = down(x)
            kept.append(x)
        for index in reversed(range(len(self.up))):
            x = self.join[index](torch.cat([kept[index], self.up[index](x)], dim=1))
        return self.head(x)


def transposed(channels: int, made: int) -> nn.Module:
    return nn.ConvTranspose2d(channels, made, 2, 2)


class MonaiResidual(nn.Module):
    """MONAI's ResidualUnit: convolution, instance normalisation, PReLU, twice, beside a convolution."""

    def __init__(self, channels: int, made: int, stride: int = 1) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index in range(2):
            layers += [
                nn.Conv2d(made if index else channels, made, 3, 1 if index else stride, 1),
                nn.InstanceNorm2d(made),
                nn.PReLU(),
            ]
        self.body = nn.Sequential(*layers)
        self.beside = nn.Conv2d(channels, made, 3, stride, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.beside(x)


class MonaiUNet(nn.Module):
    """MONAI's UNet: every level halves, and doubles by transposed convolutions of 3 x 3."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([MonaiResidual(3, 6, 2), MonaiResidual(6, 8, 2)])
        self.bottom = MonaiResidual(8, 12)
        self.up = nn.ModuleList(
            nn.Sequential(nn.ConvTranspose2d(a, b, 3, 2, 1, 1), nn.InstanceNorm2d(b), nn.PReLU(), MonaiResidual(b, b))
            for a, b in ((20, 6), (12, CLASSES))
        )

    def forward(self, x: Tensor) -> Tensor:
        first = self.down[0](x)
        second = self.down[1](first)
        third = self.up[0](torch.cat([second, self.bottom(second)], dim=1))
        return self.up[1](torch.cat([first, third], dim=1))


class GroupNormedResidual(nn.Module):
    """Normalisation before the convolutions, as in SegResNet (Myronenko 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(2):
            layers += [nn.GroupNorm(4, channels), nn.ReLU(), nn.Conv2d(channels, channels, 3, 1, 1, bias=False)]
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class SegResNet(nn.Module):
    """Group normalisation; interpolated maps are added to those of the way down."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, 8, 3, 1, 1)
        self.first = GroupNormedResidual(8)
        self.halve = nn.Conv2d(8, 16, 3, 2, 1)
        self.second = GroupNormedResidual(16)
        self.larger = nn.Sequential(
            nn.Conv2d(16, 8, 1), nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        )
        self.third = GroupNormedResidual(8)
        self.head = nn.Sequential(nn.GroupNorm(4, 8), nn.ReLU(), nn.Conv2d(8, CLASSES, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.enter(x))
        return self.head(self.third(x + self.larger(self.second(self.halve(x)))))


class Excited(nn.Module):
    """Squeeze-and-excitation (Hu et al. 2018), by fully connected layers or by 1 x 1 convolutions."""

    def __init__(self, channels: int, *, connected: bool) -> None:
        super().__init__()
        self.connected = connected
        inner = channels // 2
        if connected:
            self.gate = nn.Sequential(nn.Linear(channels, inner), nn.ReLU(), nn.Linear(inner, channels), nn.Sigmoid())
        else:
            self.gate = nn.Sequential(
                nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, inner, 1), nn.SiLU(), nn.Conv2d(inner, channels, 1),
                nn.Hardsigmoid(),
            )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        if not self.connected:
            return x * self.gate(x)
        batch, channels = x.shape[:2]
        pooled = functional.adaptive_avg_pool2d(x, 1).view(batch, channels)
        return x * self.gate(pooled).view(batch, channels, 1, 1)


class Between(nn.Module):
    """A local network with ``block`` at full and at half the size."""

    def __init__(self, block: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, 8, 3, 1, 1)
        self.first, self.second = block(8), block(8)
        self.halve = nn.Conv2d(8, 8, 3, 2, 1)
        self.larger = nn.Upsample(scale_factor=2, mode="nearest")
        self.head = nn.Conv2d(16, CLASSES, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(torch.relu(self.enter(x)))
        second = self.larger(self.second(torch.relu(self.halve(first))))
        return self.head(torch.cat([first, second], dim=1))


class Called(nn.Module):
    """A function as a layer."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def layer_normed(x: Tensor) -> Tensor:
    """Layer normalisation of each channel over rows and columns."""
    return functional.layer_norm(x, x.shape[2:])


def layer_normed_whole(x: Tensor) -> Tensor:
    """Layer normalisation over channels, rows and columns."""
    return functional.layer_norm(x, x.shape[1:])


def standardised(x: Tensor) -> Tensor:
    """Mean and standard deviation of each channel, by hand."""
    return (x - x.mean((2, 3), keepdim=True)) / (x.std((2, 3), keepdim=True, unbiased=False) + 1e-5)


def standardised_unbiased(x: Tensor) -> Tensor:
    """The same by one value less."""
    return (x - x.mean((2, 3), keepdim=True)) / (x.std((2, 3), keepdim=True) + 1e-5)


def variance_mean(x: Tensor) -> Tensor:
    variance, mean = torch.var_mean(x, dim=(1, 2, 3), keepdim=True, unbiased=False)
    return (x - mean) * torch.rsqrt(variance + 1e-5)


def decomposed(x: Tensor) -> Tensor:
    """The mean of squares less the square of the mean."""
    mean = x.mean((2, 3), keepdim=True)
    variance = (x * x).mean((2, 3), keepdim=True) - mean * mean
    return (x - mean) / torch.sqrt(variance + 1e-5)


def response_normed(x: Tensor) -> Tensor:
    """Global response normalisation (ConvNeXt V2, Woo et al. 2023)."""
    norm = torch.linalg.vector_norm(x, dim=(2, 3), keepdim=True)
    return x + 0.5 * x * norm / (norm.mean(1, keepdim=True) + 1e-6)


def context(x: Tensor) -> Tensor:
    """Global context (Cao et al. 2019): a mean of all pixels, weighted by a softmax over them."""
    batch, channels, height, width = x.shape
    weights = torch.softmax(x[:, :1].reshape(batch, 1, height * width), dim=2)
    pooled = torch.matmul(x.reshape(batch, channels, height * width), weights.transpose(1, 2))
    return x + pooled.reshape(batch, channels, 1, 1)


def spatial_softmax(x: Tensor) -> Tensor:
    """A softmax over all pixels of each channel, as large as their number makes it."""
    batch, channels, height, width = x.shape
    weights = torch.softmax(x.reshape(batch, channels, height * width), dim=2)
    return (weights * (height * width)).reshape(batch, channels, height, width)


def flattened(x: Tensor) -> Tensor:
    """Standardised, with rows and columns in one axis; by the mean of magnitudes, too."""
    batch, channels, height, width = x.shape
    flat = x.reshape(batch, channels, height * width)
    variance, mean = torch.var_mean(flat, dim=2, keepdim=True, unbiased=False)
    normal = (flat - mean) / torch.sqrt(variance + 1e-5) * (1 + flat.abs().mean(2, keepdim=True))
    return normal.reshape(batch, channels, height, width)


class TrainingNorm(nn.BatchNorm2d):
    """Batch normalisation that takes the statistics of the image at hand, whatever the mode."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, track_running_stats=False)


BLOCKS: Mapping[str, Callable[[int], nn.Module]] = {
    "excited_linear": lambda channels: Excited(channels, connected=True),
    "excited_conv": lambda channels: Excited(channels, connected=False),
    "instance_norm_function": lambda _: Called(functional.instance_norm),
    "layer_norm_of_channels": lambda _: Called(layer_normed),
    "layer_norm_of_all": lambda _: Called(layer_normed_whole),
    "group_norm_of_one": lambda channels: nn.GroupNorm(1, channels),
    "group_norm_of_channels": lambda channels: nn.GroupNorm(channels, channels, affine=False),
    "training_norm": TrainingNorm,
    "standardised": lambda _: Called(standardised),
    "standardised_unbiased": lambda _: Called(standardised_unbiased),
    "variance_mean": lambda _: Called(variance_mean),
    "decomposed": lambda _: Called(decomposed),
    "context": lambda _: Called(context),
    "spatial_softmax": lambda _: Called(spatial_softmax),
    "flattened": lambda _: Called(flattened),
    "response_normed": lambda _: Called(response_normed),
    **{name: (lambda _, block=block: Called(block)) for name, block in attention_modules.BLOCKS.items()},  # type: ignore[misc]
}

NETWORKS: Mapping[str, Callable[[], nn.Module]] = {
    "nnunet_plain": lambda: EncoderDecoder(normed, transposed),
    "nnunet_residual": lambda: EncoderDecoder(NormedResidual, transposed),
    "monai_unet": MonaiUNet,
    "segresnet": SegResNet,
    **{name: (lambda block=block: Between(block)) for name, block in BLOCKS.items()},  # type: ignore[misc]
}
