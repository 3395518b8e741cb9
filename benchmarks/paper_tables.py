"""The experiments of Majurski & Bajcsy (2021) on our own networks, beside the paper's numbers.

``python benchmarks/paper_tables.py [--steps 400] [--side 1536]`` trains a U-Net (depth 4, 16 features) and an
FC-DenseNet-56 (growth 6) on the micrograph of ``models/train_stain_unet.py`` (weights are kept in ``build/``), and then

1. tiles the mirrored micrograph with halos from 0 to the one read off the graph, and compares with one pass,
2. starts the tiles off the stride,
3. measures how far a gradient that is not yet small reaches (the effective receptive field, ERF),

writes tables to standard output and the curves to ``docs/halo_error.png``. The paper's networks have 64 features and
growth 12, its images are stem cells: the shapes of the curves are to be compared, not their values.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import matplotlib as mpl
import numpy as np
import onnx
import torch
from skimage.data import immunohistochemistry
from torch import nn

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.machine import describe_machine
from exactile.sources.array import ArraySource
from exactile_converters.deploy import Normalization
from exactile_converters.from_onnx import prepare_network
from exactile_converters.torch_export import export_onnx
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
    """The network of that name, trained once."""
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
    """How far from an output pixel in the middle gradients of at least each share are found, in pixels."""
    torch.manual_seed(0)
    image = torch.randn(1, 3, side, side, requires_grad=True)
    middle = side // 2
    net(image)[0, :, middle, middle].abs().sum().backward()
    gradient = image.grad[0].abs().amax(0)
    distance = (torch.arange(side) - middle).abs()
    reach = torch.maximum(distance[:, None], distance[None])
    return [int(reach[gradient >= share * gradient.max()].max()) for share in SHARES]


def measure(name: str, steps: int, side: int) -> tuple[list[str], list[tuple[int, float]], int]:
    net = trained(name, steps)
    buffer = io.BytesIO()
    export_onnx(net, buffer, 3)
    network = prepare_network(onnx.load_from_string(buffer.getvalue()), name=name)
    geometry = network.trace().geometry
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
    y = geometry.y
    halo = f"Halo from the graph: {y.halo_before} px top and left, {y.halo_after} bottom and right; stride {y.stride}."
    lines = [
        f"\n## {name}\n",
        f"{halo} Image {side} x {side}, tile {tile} x {tile}, {steps} training steps.\n",
        "| halo, px | RMSE of the softmax | labels that differ | pixels computed / wanted | the paper's RMSE |",
        "|---|---|---|---|---|",
    ]
    for point in found.sweep.halos:
        paper = PAPER[name].get(point.halo_px)
        lines.append(
            f"| {point.halo_px} | {point.rmse:.2e} | {point.different_labels} | {point.computed_over_wanted:.2f} "
            f"| {f'{paper:.2e}' if paper is not None else ''} |"
        )
    if max(point.tiles for point in found.sweep.offsets) > 4:  # four tiles all lie at edges, where they are aligned
        lines += ["\n| tiles start off the stride by, px | RMSE of the softmax | labels that differ |", "|---|---|---|"]
        lines += [
            f"| {point.offset_px} | {point.rmse:.2e} | {point.different_labels} |" for point in found.sweep.offsets
        ]
    reach = effective_reach(net, 2 * max(y.halo_before, y.halo_after) // 32 * 32 + 64)
    told = ", ".join(f"{px} px at {share:g}" for px, share in zip(reach, SHARES, strict=True))
    lines.append(
        f"\nEffective receptive field, by the share of the largest gradient that counts: {told}. The paper found "
        f"{PAPER_ERF[name]}. Exact is {max(y.halo_before, y.halo_after)}."
    )
    return lines, [(point.halo_px, point.rmse) for point in found.sweep.halos], max(y.halo_before, y.halo_after)


def draw(curves: dict[str, tuple[list[tuple[int, float]], int]], path: Path) -> None:
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--side", type=int, default=1536)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    options = parser.parse_args()
    lines, curves = [], {}
    for name in options.networks:
        found, points, halo = measure(name, options.steps, options.side)
        lines += found
        curves[name] = points, halo
    print(describe_machine())
    print(f"\nCommand: `python benchmarks/paper_tables.py --steps {options.steps} --side {options.side}`")
    print("\n".join(lines))
    if len(curves) > 1:
        draw(curves, ROOT / "docs" / "halo_error.png")


if __name__ == "__main__":
    main()
