"""The experiments of Majurski & Bajcsy (2021) on our own networks, beside the paper's numbers.

``python -m benchmarks.paper_tables [--quick] [--steps 400] [--side 1536]`` trains a U-Net (depth 4, 16 features) and an
FC-DenseNet-56 (growth 6) on the micrograph of ``models/train_stain_unet.py`` (weights are kept in ``build/``), and then

1. tiles the mirrored micrograph with halos from 0 to the one read off the graph, and compares with one pass,
2. starts the tiles off the stride,
3. measures how far a gradient that is not yet small reaches (the effective receptive field, ERF),

and draws the curves to ``docs/halo_error.png``. The paper's networks have 64 features and
growth 12, its images are stem cells: compare the shapes of the curves, not their values.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from skimage.data import immunohistochemistry
from torch import nn

from benchmarks.harness.part import run_part
from benchmarks.harness.record import Record, Table
from benchmarks.networks import prepared
from exactile.geometry import AxisGeometry
from exactile.sources.array import ArraySource
from exactile_converters.deploy import Normalization
from exactile_converters.verify import verify
from models.fc_densenet import LAYERS, FCDenseNet
from models.train_stain_unet import MEAN, SCALE, STD, TRAINING, Recipe, label, train
from models.unet import UNet

ROOT = Path(__file__).parent.parent
BUILD = ROOT / "build"

NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "U-Net": (lambda: UNet(3, 3, features=16, depth=4), 512),
    "FC-DenseNet-56": (lambda: FCDenseNet(3, 3, layers=LAYERS[56], growth=6, features=24), 1152),
}
"""What to build, and the tile (input with halo), as in the paper."""

# RMSE of the softmax, trained weights: U-Net, tile 512, and FC-DenseNet-56, tile 1152.
PAPER = {
    "U-Net": {0: 1.11e-2, 16: 6.35e-3, 32: 3.29e-3, 48: 1.95e-3, 64: 7.79e-4, 80: 1.50e-4, 96: 4.17e-10},
    "FC-DenseNet-56": {0: 5.40e-3, 96: 3.36e-4, 160: 4.97e-6, 192: 2.44e-7, 384: 1.37e-8},
}
PAPER_ERF = {"U-Net": 96, "FC-DenseNet-56": 160}
SHARES = (1e-1, 1e-2, 1e-4, 1e-6)
"""Gradients down to these shares of the largest one count as seen."""


def trained(name: str, steps: int) -> nn.Module:
    """Return the network of that name, trained once."""
    build, _ = NETWORKS[name]
    path = BUILD / f"{name}-{steps}.pth"
    if path.is_file():
        net = build()
        net.load_state_dict(torch.load(path, weights_only=True))
        return net.eval()
    image = immunohistochemistry()
    begin = time.perf_counter()
    with redirect_stdout(sys.stderr):  # its progress
        net = train(image[:, TRAINING], label(image)[:, TRAINING], Recipe(steps=steps, batch=4), build)
    print(f"{name}: trained in {time.perf_counter() - begin:.0f} s", file=sys.stderr)
    BUILD.mkdir(exist_ok=True)
    torch.save(net.state_dict(), path)
    return net.eval()


def mirrored(side: int) -> np.ndarray:
    image = immunohistochemistry()
    return np.pad(image, [(0, side - image.shape[0]), (0, side - image.shape[1]), (0, 0)], mode="symmetric")


def effective_reach(net: nn.Module, side: int) -> list[int]:
    """Return how far from an output pixel in the middle gradients of at least each share are found, in pixels."""
    torch.manual_seed(0)
    image = torch.randn(1, 3, side, side, requires_grad=True)
    middle = side // 2
    net(image)[0, :, middle, middle].abs().sum().backward()
    gradient = image.grad[0].abs().amax(0)
    distance = (torch.arange(side) - middle).abs()
    reach = torch.maximum(distance[:, None], distance[None])
    return [int(reach[gradient >= share * gradient.max()].max()) for share in SHARES]


HALOS = (
    "halo, px", "RMSE of the softmax|.2e", "labels that differ|d", "pixels computed / wanted|.2f",
    "the paper's RMSE|.2e",
)  # fmt: skip
OFFSETS = ("tiles start off the stride by, px", "RMSE of the softmax|.2e", "labels that differ|d")

Curve = tuple[list[tuple[int, float]], int]
"""(halo, RMSE), and the halo from the graph."""


def measure_network(name: str, steps: int, side: int) -> tuple[list[Table], Curve]:
    net = trained(name, steps)
    network = prepared(net, name)
    y = network.trace().geometry.y
    tile = min(NETWORKS[name][1], side)
    found = verify(
        network,
        source=ArraySource(mirrored(side)),
        normalization=Normalization(scale=(SCALE,), mean=(MEAN,), std=(STD,)),
        tile=(tile, tile),
        with_sweep=True,
        progress=lambda stage, done, total: print(f"\r{name}: {stage} {done}/{total}    ", end="", file=sys.stderr),
    )
    print(file=sys.stderr)
    note = (
        f"Halo from the graph: {y.halo_before} px top and left, {y.halo_after} bottom and right; stride {y.stride}. "
        f"Image {side} x {side}, tile {tile} x {tile}, {steps} training steps. {receptive_field(name, net, y)}"
    )
    tables = [Table(title=f"{name}: less halo", columns=HALOS, note=note)]
    for point in found.sweep.halos:
        paper = PAPER[name].get(point.halo_px)
        tables[0].add(point.halo_px, point.rmse, point.different_labels, point.computed_over_wanted, paper)
    if max(point.tiles for point in found.sweep.offsets) > 4:  # four tiles all lie at edges, where they are aligned
        tables.append(Table(title=f"{name}: tiles off the stride", columns=OFFSETS))
        for point in found.sweep.offsets:
            tables[1].add(point.offset_px, point.rmse, point.different_labels)
    points = [(point.halo_px, point.rmse) for point in found.sweep.halos]
    return tables, (points, max(y.halo_before, y.halo_after))


def receptive_field(name: str, net: nn.Module, y: AxisGeometry) -> str:
    exact = max(y.halo_before, y.halo_after)
    reach = effective_reach(net, 2 * exact // 32 * 32 + 64)
    told = ", ".join(f"{px} px at {share:g}" for px, share in zip(reach, SHARES, strict=True))
    return (
        f"Effective receptive field, by the share of the largest gradient that counts: {told}. The paper found "
        f"{PAPER_ERF[name]}. Exact is {exact}."
    )


def draw(curves: dict[str, Curve], path: Path) -> None:
    """Error against halo, ours and the paper's; where the graph says that it ends."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(curves), figsize=(10, 3.8), sharey=True, layout="constrained")
    for axis, (name, (points, halo)) in zip(axes, curves.items(), strict=True):
        floor = 1e-10
        axis.semilogy([px for px, _ in points], [max(rmse, floor) for _, rmse in points], "o-", label="measured here")
        paper = PAPER[name]
        axis.semilogy(
            list(paper), [max(rmse, floor) for rmse in paper.values()], "s--", color="grey", label="the paper"
        )
        axis.axvline(halo, color="crimson", linewidth=1)
        axis.annotate(f"the graph: {halo} px", (halo, 1e-3), rotation=90, ha="right", va="center", color="crimson")
        axis.set_title(name)
        axis.set_xlabel("halo, pixels")
    axes[0].set_ylabel("RMSE of the softmax (1e-10: none)")
    axes[0].legend(loc="lower left")
    figure.suptitle(
        "Tiles with less halo than the graph asks for are wrong; with it they are one pass over the whole image"
    )
    figure.savefig(path, dpi=110)


def measure(options: argparse.Namespace) -> Iterator[Record]:
    tables, curves = [], {}
    for name in options.networks or (list(NETWORKS)[:1] if options.quick else list(NETWORKS)):
        found, curves[name] = measure_network(name, options.steps, options.side)
        tables += found
    if len(curves) > 1:
        draw(curves, ROOT / "docs" / "halo_error.png")
    yield Record(part="paper_tables", title="The paper's experiments", tables=tables)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--side", type=int, default=1536)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS)
    run_part(measure, parser)


if __name__ == "__main__":
    main()
