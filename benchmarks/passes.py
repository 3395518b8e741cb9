"""Measure the cost of passes for statistics of the whole image, relative to one pass over it.

``python -m benchmarks.passes [--sizes 2048 8192] [--memory 1GiB] [--rounds 3] [NETWORK ...]``. One pass has all the
memory that it needs; passes have ``--memory`` beside what the process has before: "kept" with maps kept between them,
in memory and on the disk, "again" (once, and of quick networks) each from the image. The image is an array of random
samples; opening graphs is counted, deploying is not. ``labels apart`` are those of "kept" that differ from one pass:
weights are random, and scores lie close together. "predicted" is what the summary predicts. Images of more than 4096 x
4096 pixels are beyond one pass: their time is compared with that of one pass over 2048 x 2048, for as many pixels.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.harness.part import run_part
from benchmarks.harness.record import Record, Table
from benchmarks.harness.turns import in_turn, median_ratio, ratios, spread
from exactile.runs.summary import Summary

COLUMNS = (
    "network", "levels", "kept maps", "kept MiB|.0f", "one pass s|.2f", "predicted|.2f", "kept by one pass|.2f",
    "rounds", "again by one pass|.2f", "labels apart",
)  # fmt: skip
BEYOND = (
    "network", "levels", "kept maps", "kept MiB|.0f", "kept s|.1f", "predicted|.2f", "by one pass, scaled|.2f",
)  # fmt: skip
MEMORY_OF_ONE_PASS = 18 << 30
LARGEST_WHOLE_PX = 4096
LONG_S = 20.0
"""Networks of which one pass takes longer are measured once, and not with all passes from the image."""

QUARTER_OF_AN_HOUR = "nnU-Net, 2-D plan"
"""What it takes beyond one pass; it is measured there only where it is named."""

USUAL_PX = 2048
NNUNET_WIDTHS = (32, 64, 128, 256, 512, 512, 512)


def unet_with_instance_norm() -> nn.Module:
    """Return U-Net of depth 4 with 16 features, and instance normalisation in place of batch normalisation."""
    from models.unet import UNet

    network = UNet(3, 4, features=16)
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, nn.InstanceNorm2d(child.num_features, affine=True))
    return network


def nnunet() -> nn.Module:
    """Return the network that nnU-Net plans for 2-D images: 7 resolutions, 26 instance normalisations (Isensee et al.
    2021).
    """
    from tests.support.normed_modules import EncoderDecoder, normed, transposed

    def twice(channels: int, made: int, stride: int = 1) -> nn.Module:
        return nn.Sequential(normed(channels, made, stride), normed(made, made))

    return EncoderDecoder(twice, transposed, NNUNET_WIDTHS)


def published(family: str, encoder: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        from tests.support.torchvision_operators import torchvision_declared

        with torchvision_declared():
            import segmentation_models_pytorch as smp

            made: nn.Module = getattr(smp, family)(encoder, encoder_weights=None, classes=4)
            return made

    return make


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "U-Net 16, instance norm": unet_with_instance_norm,
    "nnU-Net, 2-D plan": nnunet,
    "Unet, EfficientNet-b0": published("Unet", "efficientnet-b0"),
    "DeepLabV3+, ResNet-18": published("DeepLabV3Plus", "resnet18"),
    "FPN, ResNet-18": published("FPN", "resnet18"),
}


def exported(make: Callable[[], nn.Module], folder: Path, index: int) -> Path:
    from exactile_converters.torch_export import export_onnx

    torch.manual_seed(0)
    path = folder / f"network-{index}.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export_onnx(make().eval(), path, 3, (128, 128), exporter="torchscript", stride=64)
    return path


class Case:
    """A network, deployed for images of ``size`` in passes and, if requested, in one pass."""

    def __init__(self, path: Path, size: tuple[int, int], memory: int, *, whole: bool) -> None:
        from exactile_converters.deploy import Normalization, deploy_in_passes, deploy_whole, load_network

        scaled = Normalization(scale=(255.0,))
        self.model = deploy_in_passes(load_network(path), image_dtype="uint8", image_size=size, normalization=scaled)
        self.one = None
        if whole:
            self.one = deploy_whole(load_network(path), image_dtype="uint8", image_size=size, normalization=scaled)
        self.size, self._memory = size, memory
        self._image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
        self.results: dict[str, np.ndarray] = {}
        self.summaries: dict[str, Summary] = {}

    def run(self, way: str) -> None:
        """Run it as "one pass", "kept" or "again"."""
        from exactile.machine.memory import settled_resident_bytes
        from exactile.session import Session
        from exactile.sinks.array import ArraySink
        from exactile.sources.array import ArraySource

        deployed = {"one pass": self.one, "kept": self.model, "again": replace(self.model, keeping=None)}[way]
        assert deployed is not None
        memory = MEMORY_OF_ONE_PASS if way == "one pass" else settled_resident_bytes() + self._memory
        sink = ArraySink()
        self.summaries[way] = Session(deployed, memory_bytes=memory).segment(ArraySource(self._image), sink)
        self.results[way] = sink.result

    def kept(self) -> tuple[int, float]:
        """Return how many maps are kept, and the most MiB of them at any time."""
        from exactile.kept_maps.store import most_kept_bytes

        kept = self.model.keeping.at(self.size) if self.model.keeping is not None else None
        assert kept is not None
        maps = {each.output for level in kept.levels for each in level.model.writes}
        return len(maps), most_kept_bytes(kept, self.size) / 2**20


def measure(options: argparse.Namespace) -> Iterator[Record]:
    from exactile.plan.budget import parse_bytes

    sizes = [512] if options.quick else options.sizes
    budget = parse_bytes(options.memory) or 0
    names = options.networks or list(NETWORKS)
    tables = []
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: exported(NETWORKS[name], Path(folder), index) for index, name in enumerate(names)}
        for px in sizes:
            if px > LARGEST_WHOLE_PX and not options.networks:
                paths = {name: path for name, path in paths.items() if name != QUARTER_OF_AN_HOUR}
            if px <= LARGEST_WHOLE_PX:
                rounds = options.rounds or (1 if options.quick else 3)
                tables.append(beside_one_pass(paths, px, budget, rounds, options.memory))
            else:
                tables.append(beyond_one_pass(paths, px, budget, options.rounds or 1, options.memory))
    yield Record(
        part="passes",
        title="Passes for statistics of the whole image",
        tables=tables,
        remarks=__doc__.split("\n\n", 1)[1].strip(),
    )


def beside_one_pass(paths: Mapping[str, Path], px: int, budget: int, rounds: int, memory: str) -> Table:
    table = Table(title=f"{px} x {px} pixels, passes within {memory}", columns=COLUMNS)
    for name, path in paths.items():
        case = Case(path, (px, px), budget, whole=True)
        ways: dict[str, Callable[[], object]] = {
            way: lambda way=way, case=case: case.run(way) for way in ("one pass", "kept")
        }
        seconds = in_turn(ways, 1, say=name)
        long = seconds["one pass"][0] > LONG_S
        again = None
        if not long:
            more = in_turn(ways, rounds - 1, say=name)
            seconds = {way: [*seconds[way], *more[way]] for way in ways}
            (again,) = in_turn({"again": lambda case=case: case.run("again")}, 1, say=name)["again"]  # type: ignore[misc]
        by_one = seconds["kept"], seconds["one pass"]
        table.add(
            name,
            len(case.model.levels),
            *case.kept(),
            float(np.median(seconds["one pass"])),
            case.summaries["kept"].predicted_work,
            median_ratio(*by_one),
            spread(ratios(*by_one)),
            again / float(np.median(seconds["one pass"])) if again is not None else None,
            int((case.results["kept"] != case.results["one pass"]).sum()),
        )
    return table


def beyond_one_pass(paths: Mapping[str, Path], px: int, budget: int, rounds: int, memory: str) -> Table:
    """Measure relative to one pass over an image of ``USUAL_PX``, for as many pixels."""
    table = Table(title=f"{px} x {px} pixels, passes within {memory}", columns=BEYOND)
    for name, path in paths.items():
        small, large = Case(path, (USUAL_PX, USUAL_PX), budget, whole=True), Case(path, (px, px), budget, whole=False)
        ways: dict[str, Callable[[], object]] = {
            "one pass": lambda small=small: small.run("one pass"),
            "kept": lambda large=large: large.run("kept"),
        }
        seconds = in_turn(ways, rounds, say=name)
        summary = large.summaries["kept"]
        share = (px / USUAL_PX) ** 2
        table.add(
            name,
            len(large.model.levels),
            *large.kept(),
            float(np.median(seconds["kept"])),
            summary.predicted_work,
            median_ratio(seconds["kept"], [one * share for one in seconds["one pass"]]),
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=[], choices=[*NETWORKS, []], metavar="NETWORK")
    parser.add_argument("--sizes", type=int, nargs="+", default=[2048], metavar="PX")
    parser.add_argument("--memory", default="1GiB")
    parser.add_argument("--rounds", type=int)
    run_part(measure, parser)


if __name__ == "__main__":
    main()
