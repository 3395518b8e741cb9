"""Small integer weights for a network, so that float32 arithmetic on it is exact in every order of summation.

With them a tiled and a whole-image pass must agree bit for bit: a difference is an error of geometry, never rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

FLOAT32_BITS = 24
MAX_NEGATIVE_TAPS = 8
SPARE_BITS = 2  # other images than the one tried may have larger activations

# A power of two, so that variance + epsilon is 1 exactly, in float32 as in float64.
BATCH_NORM_EPSILON = 2.0**-16

Convolution = nn.Conv2d | nn.ConvTranspose2d


def integer_weights(
    module: nn.Module, seed: int, *, channels: int, size: tuple[int, int] = (64, 64), largest_input: int = 7
) -> nn.Module:
    """Replace all parameters, in place, by small integers; return the module, in eval mode.

    Convolutions get weights in {-1, 0, 1} with few non-zeros per filter, biases in {0, 1}; batch normalisation gets
    scale 1 and shifts in {0, 1}. Filter ``o`` reads the ``o % 4``-th corner of its kernel with weight +1, from channels
    that do the same, so a large value in one input pixel travels as far up, down, left and right as the architecture
    lets it (given ReLU, and channel counts that are multiples of 4). The negative weights lie elsewhere; there are as
    many as it takes to keep activations from growing with depth.

    The weights are tried on a random image (1, channels, height, width) of integers in [0, largest_input].
    Raises ValueError if no choice stays within what float32 holds exactly: bilinear up-sampling costs 4 bits a level,
    so more than 4 levels of it do not fit.
    """
    module.eval()
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, largest_input + 1, (1, channels, *size), generator=generator).double()
    module.double()
    try:
        for largest in (256, 64, 16, 8):
            assign(module, image, largest, generator)
            if bits_needed(module, image) <= FLOAT32_BITS - SPARE_BITS:
                return module
    finally:
        module.float()
    raise ValueError(f"no integer weights found that keep {type(module).__name__} exact in float32")


@torch.no_grad()
def balance_classes(
    module: nn.Module, *, channels: int, size: tuple[int, int] = (64, 64), largest_input: int = 7
) -> None:
    """Change the head of a network with integer weights, in place, so that several classes win in many places.

    The scores of the first class, less their mean over a random image, are kept; the second class has their negative,
    and a third one a constant, which wins near the mean. Raises ValueError where one of these wins nowhere.
    """
    last: list[tuple[Convolution, Tensor]] = []
    layers = [layer for layer in module.modules() if isinstance(layer, Convolution)]
    handles = [layer.register_forward_hook(lambda layer, _, output: last.append((layer, output))) for layer in layers]
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, largest_input + 1, (1, channels, *size), generator=generator).float()
    module(image)
    for handle in handles:
        handle.remove()
    layer, output = last[-1]
    if layer.bias is None or layer.out_channels < 2:
        raise ValueError(f"the last layer of {type(module).__name__} has no bias, or one class alone: {layer}")
    weights = layer.weight.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else layer.weight  # of each output
    centre = output[0, 0].mean().round()
    layer.bias[0] -= centre
    weights[1], layer.bias[1] = -weights[0], -layer.bias[0]
    weights[2:], layer.bias[2:] = 0, (output[0, 0] - centre).abs().median().clamp(min=1)
    if len(module(image).argmax(1).unique()) < min(3, layer.out_channels):
        raise ValueError(f"a class of {type(module).__name__} wins nowhere")


@torch.no_grad()
def assign(module: nn.Module, image: Tensor, largest: int, generator: torch.Generator) -> None:
    """Set the parameters layer by layer, in view of the activations (float64), which should not pass ``largest``."""

    def on_convolution(layer: nn.Module, inputs: Any) -> None:
        assert isinstance(layer, Convolution)
        if layer.bias is not None:
            layer.bias.copy_(torch.randint(0, 2, layer.bias.shape, generator=generator))
        taps = layer.weight.zero_()
        transposed = isinstance(layer, nn.ConvTranspose2d)
        if transposed:
            taps = taps.transpose(0, 1)  # (O, I, k, k), as for a convolution
            set_all_taps(taps)
        else:
            set_corner_taps(taps)
        allowed = negative_places(taps, transposed=transposed)
        # Run the layer itself, without this hook: it knows its own padding and stride.
        for _ in range(MAX_NEGATIVE_TAPS):
            if layer.forward(*inputs).max() <= largest:
                return
            add_negative_tap(taps, allowed, generator)

    with on_every_convolution(module, on_convolution):
        for layer in module.modules():
            if isinstance(layer, Convolution) and layer.groups != 1:
                raise ValueError(f"integer weights are made for ungrouped convolutions, got groups={layer.groups}")
            if isinstance(layer, nn.BatchNorm2d):
                set_batch_norm(layer, generator)
        module(image)


def set_batch_norm(layer: nn.BatchNorm2d, generator: torch.Generator) -> None:
    """Set scale 1, integer shift."""
    assert layer.running_mean is not None
    assert layer.running_var is not None
    layer.eps = BATCH_NORM_EPSILON
    layer.running_mean.zero_()
    layer.running_var.fill_(1 - BATCH_NORM_EPSILON)
    layer.weight.fill_(1)
    layer.bias.copy_(torch.randint(0, 2, layer.bias.shape, generator=generator))


def same_corner(channels: int, output: int) -> list[int]:
    """Return input channels whose own filters read the same corner as this output's; all, if there are
    too few to tell.
    """
    return list(range(output % 4, channels, 4)) if channels >= 4 else list(range(channels))


def set_corner_taps(taps: Tensor) -> None:
    """Set weight +1 at one corner of each filter (O, I, k, k): from one channel early and from one late in a Concat."""
    outputs, channels, height, width = taps.shape
    corners = [(0, 0), (0, width - 1), (height - 1, 0), (height - 1, width - 1)]
    for output in range(outputs):
        # With fewer filters than corners (a head), every filter reads all of them.
        for corner in [output % 4] if outputs >= 4 else range(4):
            sources = same_corner(channels, corner)
            for source in (sources[output // 4 % len(sources)], sources[-1]):
                taps[output, source, *corners[corner]] = 1


def set_all_taps(taps: Tensor) -> None:
    """Set weight +1 at every tap of one channel of each filter: strided, a transposed convolution hardly sums any."""
    for output in range(taps.shape[0]):
        sources = same_corner(taps.shape[1], output)
        taps[output, sources[output // 4 % len(sources)]] = 1


def negative_places(taps: Tensor, *, transposed: bool) -> list[Tensor]:
    """Return for each filter the indices (into I, k, k) of zero taps that the farthest-travelling value never meets."""
    outputs, channels, height, width = taps.shape
    corners_only = transposed or (height <= 2 and width <= 2)
    places = []
    for output in range(outputs):
        free = taps[output] == 0
        if corners_only:
            free[same_corner(channels, output)] = False
        else:
            free[:, [0, 0, -1, -1], [0, -1, 0, -1]] = False
        places.append(free.nonzero())
    return places


def add_negative_tap(taps: Tensor, allowed: list[Tensor], generator: torch.Generator) -> None:
    """Set one more random tap of each filter to -1, where there is room."""
    for output, places in enumerate(allowed):
        if len(places):
            channel, y, x = places[int(torch.randint(0, len(places), (), generator=generator))]
            taps[output, channel, y, x] = -1


@torch.no_grad()
def bits_needed(module: nn.Module, image: Tensor) -> int:
    """Return bits of mantissa that every sum in every convolution fits in, whatever the order of its terms."""
    bits = [0]

    def on_convolution(layer: nn.Module, inputs: Any) -> None:
        assert isinstance(layer, Convolution)
        (x,) = inputs
        signed, layer.weight.data = layer.weight.data, layer.weight.data.abs()
        largest = layer.forward(x.abs()).abs().max().item()
        layer.weight.data = signed
        bits.append(int(largest).bit_length() + fraction_bits(x))

    with on_every_convolution(module, on_convolution):
        module(image)
    return max(bits)


def fraction_bits(x: Tensor) -> int:
    """Return the smallest ``b`` for which every ``x * 2**b`` is an integer; 53 stands for more than float64 holds."""
    return next((b for b in range(53) if torch.equal(scaled := x * 2.0**b, scaled.round())), 53)


@contextmanager
def on_every_convolution(module: nn.Module, action: Callable[[nn.Module, Any], None]) -> Iterator[None]:
    """Call ``action(layer, inputs)`` before each convolution runs."""
    handles = [layer.register_forward_pre_hook(action) for layer in module.modules() if isinstance(layer, Convolution)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
