"""How far networks look, and how far it shows: exact halos beside effective receptive fields.

``python -m benchmarks.receptive_field [--quick]`` takes the reference networks of ``models/`` with seeded random
weights and batch normalisation by the statistics of noise, and noise as the image (64 columns, as many rows as it
takes), and finds along the rows

1. the halo that the graph asks for,
2. how far from a row of the output its gradient is still at least a share of its largest value (the effective receptive
   field of Luo et al. 2016 and of Majurski & Bajcsy 2021),
3. from which distance on other noise in place of all pixels changes no score of an aligned box by more than a share of
   their range.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib as mpl
import torch
from torch import nn

from benchmarks.harness.part import run_part
from benchmarks.harness.record import Record, Table
from benchmarks.networks import CHANNELS, CLASSES, prepared
from exactile.geometry import AxisGeometry, round_up
from models.fc_densenet import LAYERS, FCDenseNet
from models.resnet_unet import ResNetUNet
from models.segnet import SegNet
from models.unet import UNet

COLUMNS = 64
SHARES = (1e-2, 1e-4, 1e-6)


def dense(name: int, up: str = "same3") -> Callable[[], nn.Module]:
    return lambda: FCDenseNet(CHANNELS, CLASSES, layers=LAYERS[name], growth=6, features=24, up=up)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "U-Net": lambda: UNet(CHANNELS, CLASSES, features=16, depth=4),
    "U-Net, 3x3 up-convolution": lambda: UNet(CHANNELS, CLASSES, features=16, depth=4, up="transpose3"),
    "U-Net, bilinear": lambda: UNet(CHANNELS, CLASSES, features=16, depth=4, up="bilinear"),
    "U-Net, nearest": lambda: UNet(CHANNELS, CLASSES, features=16, depth=4, up="nearest"),
    "SegNet": lambda: SegNet(CHANNELS, CLASSES, features=16),
    "ResNet U-Net, bilinear": lambda: ResNetUNet(CHANNELS, CLASSES, features=16),
    "ResNet U-Net, nearest": lambda: ResNetUNet(CHANNELS, CLASSES, features=16, up="nearest"),
    "FC-DenseNet-56": dense(56),
    "FC-DenseNet-56, 2x2 up-convolution": dense(56, "transpose2"),
    "FC-DenseNet-67": dense(67),
    "FC-DenseNet-103": dense(103),
}


def network(build: Callable[[], nn.Module]) -> nn.Module:
    """Return a network with seeded weights; batch normalisation by what noise gives."""
    torch.manual_seed(0)
    net = build()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the plain mean of all batches
    with torch.no_grad():
        net.train()(torch.randn(2, CHANNELS, 256, 256))
    return net.eval()


def by_gradient(net: nn.Module, rows: int) -> list[int]:
    """Return how far from the middle row of the output gradients of at least each share are found, in pixels."""
    torch.manual_seed(1)
    image = torch.randn(1, CHANNELS, rows, COLUMNS, requires_grad=True)
    middle = rows // 2
    net(image)[0, :, middle].abs().sum().backward()  # one pixel may lie behind dead units
    gradient = image.grad[0].abs().amax((0, 2))
    distance = (torch.arange(rows) - middle).abs()
    return [int(distance[gradient >= share * gradient.max()].max()) for share in SHARES]


def by_change(net: nn.Module, rows: int, y: AxisGeometry) -> list[int]:
    """Return the distance, a multiple of the stride, from which on other rows change scores by no more
    than each share.
    """
    torch.manual_seed(1)
    image, other = torch.randn(2, 1, CHANNELS, rows, COLUMNS)
    start = rows // 2 // y.stride * y.stride
    box, found = slice(start, start + y.stride), {}

    def change(distance: int) -> float:
        if distance not in found:
            changed = image.clone()
            changed[:, :, : start - distance] = other[:, :, : start - distance]
            changed[:, :, start + y.stride + distance :] = other[:, :, start + y.stride + distance :]
            with torch.no_grad():
                gap = (net(changed)[:, :, box] - base).abs().max()
            found[distance] = float(gap / (base.max() - base.min()))
        return found[distance]

    with torch.no_grad():
        base = net(image)[:, :, box]
    return [_first(change, share, round_up(max(y.before, y.after), y.stride), y.stride) for share in SHARES]


def _first(change: Callable[[int], float], share: float, last: int, stride: int) -> int:
    """Search by bisection: changes fall with the distance."""
    low, high = -1, last // stride
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if change(middle * stride) <= share else (middle, high)
    return high * stride


def measure(options: argparse.Namespace) -> Iterator[Record]:
    shares = [f"{share:.0e}".replace("e-0", "e-") for share in SHARES]
    table = Table(
        title="Halos, in pixels along the rows",
        columns=(
            "network", "stride", "exact halo, top", "exact halo, bottom",
            *(f"gradient, {share}" for share in shares), *(f"change of scores, {share}" for share in shares),
        ),
        note="Gradient: of the middle row of the output, by its largest value. Change of scores: of a box as high as "
        "the stride, by the range of its scores, when all pixels farther off are others; multiples of the stride.",
    )  # fmt: skip
    found: dict[str, tuple[int, list[int], list[int]]] = {}
    for name, build in list(NETWORKS.items())[: 2 if options.quick else None]:
        net = network(build)
        y = prepared(net, name).trace().geometry.y
        rows = round_up(y.halo_before + y.halo_after + 3 * y.stride, 2 * y.stride)
        gradient, change = by_gradient(net, rows), by_change(net, rows, y)
        print(name, y.halo_before, y.halo_after, gradient, change, file=sys.stderr, flush=True)
        table.add(name, y.stride, y.halo_before, y.halo_after, *gradient, *change)
        found[name] = max(y.halo_before, y.halo_after), gradient, change
    yield Record(
        part="receptive_field",
        title="Exact and effective receptive fields",
        remarks="Random weights: training changes how far it shows (paper_tables.md), never how far a network looks.",
        tables=[table],
        pictures={"receptive_field.png": lambda path: draw(found, path)},
    )


def draw(found: dict[str, tuple[int, list[int], list[int]]], path: Path) -> None:
    """Draw for each network the exact halo as a bar, the effective ones as marks."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(9, 0.45 * len(found) + 1.6), layout="constrained")
    places = range(len(found), 0, -1)
    axis.barh(places, [halo for halo, _, _ in found.values()], color="lightgrey", label="exact, from the graph")
    for index, (share, marker) in enumerate(zip(SHARES, "o^s", strict=True)):
        axis.plot([one[index] for _, one, _ in found.values()], places, f"C0{marker}", label=f"gradient, {share:g}")
        axis.plot([one[index] for _, _, one in found.values()], places, f"C3{marker}", label=f"scores, {share:g}")
    axis.set_yticks(places, list(found))
    axis.set_xlabel("pixels beyond the output box")
    axis.legend(loc="upper right")
    figure.savefig(path, dpi=110)


def main() -> None:
    run_part(measure, argparse.ArgumentParser(description=__doc__))


if __name__ == "__main__":
    main()
