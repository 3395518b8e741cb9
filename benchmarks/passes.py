"""What do passes for statistics of the whole image cost? Their time by that of one pass over it.

``python -m benchmarks.passes [--size 2048] [--memory 1GiB] [--rounds 3] [NETWORK ...]``. One pass has all the memory
that it wants; passes have ``--memory`` beside what the process has before: "kept" with maps kept between them, in
memory and on the disk, "again" each from the image. The image is an array of random samples; opening graphs is counted,
deploying is not. ``labels apart`` are those of "kept" that differ from one pass: weights are random, and scores lie
close together.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.harness.part import run_part
from benchmarks.harness.record import Record, Table
from benchmarks.harness.turns import in_turn, median_ratio, ratios, spread

COLUMNS = (
    "network", "levels", "kept maps", "kept MiB|.0f", "one pass s|.2f", "kept by one pass|.2f", "rounds",
    "again by one pass|.2f", "labels apart",
)  # fmt: skip
MEMORY_OF_ONE_PASS = 20 << 30


def unet_with_instance_norm() -> nn.Module:
    """U-Net of depth 4 with 16 features, and instance normalisation in the place of batch normalisation."""
    from models.unet import UNet

    network = UNet(3, 4, features=16)
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, nn.InstanceNorm2d(child.num_features, affine=True))
    return network


def published(family: str, encoder: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        from tests.torchvision_operators import torchvision_declared

        with torchvision_declared():
            import segmentation_models_pytorch as smp

            made: nn.Module = getattr(smp, family)(encoder, encoder_weights=None, classes=4)
            return made

    return make


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "U-Net 16, instance norm": unet_with_instance_norm,
    "Unet, EfficientNet-b0": published("Unet", "efficientnet-b0"),
    "DeepLabV3+, ResNet-18": published("DeepLabV3Plus", "resnet18"),
    "FPN, ResNet-18": published("FPN", "resnet18"),
}


def exported(make: Callable[[], nn.Module], folder: Path) -> Path:
    from exactile_converters.torch_export import export_onnx

    torch.manual_seed(0)
    path = folder / "network.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export_onnx(make().eval(), path, 3, (128, 128), exporter="torchscript", stride=32)
    return path


def measure(options: argparse.Namespace) -> Iterator[Record]:
    from exactile.memory import settled_resident_bytes
    from exactile.passes.store import most_kept_bytes
    from exactile.plan.budget import parse_bytes
    from exactile.session import Session
    from exactile.sinks.array import ArraySink
    from exactile.sources.array import ArraySource
    from exactile_converters.deploy import Normalization, deploy_in_passes, deploy_whole, load_network

    size = (512, 512) if options.quick else (options.size, options.size)
    budget, rounds = parse_bytes(options.memory) or 0, options.rounds or (1 if options.quick else 3)
    table = Table(title=f"{size[0]} x {size[1]} pixels, passes within {options.memory}", columns=COLUMNS)
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    for name in options.networks or NETWORKS:
        with tempfile.TemporaryDirectory() as folder:
            path = exported(NETWORKS[name], Path(folder))
            scaled = Normalization(scale=(255.0,))
            model = deploy_in_passes(
                load_network(path), image_dtype="uint8", image_size=size, normalization=scaled, strips=False
            )
            one = deploy_whole(load_network(path), image_dtype="uint8", image_size=size, normalization=scaled)
        results: dict[str, np.ndarray] = {}

        def run(way: str, deployed: object, memory: int | None, results: dict[str, np.ndarray] = results) -> None:
            sink = ArraySink()
            Session(deployed, memory_bytes=memory).segment(ArraySource(image), sink)  # type: ignore[arg-type]
            results[way] = sink.result

        again = replace(model, keeping=None)
        ways: dict[str, Callable[[], object]] = {
            "one pass": lambda one=one: run("one pass", one, MEMORY_OF_ONE_PASS),
            "kept": lambda model=model: run("kept", model, settled_resident_bytes() + budget),
            "again": lambda again=again: run("again", again, settled_resident_bytes() + budget),
        }
        seconds = in_turn(ways, rounds, say=name)
        kept = model.keeping.at(size) if model.keeping is not None else None
        assert kept is not None
        by_one = seconds["kept"], seconds["one pass"]
        table.add(
            name,
            len(model.levels),
            len({each.output for level in kept.levels for each in level.model.writes}),
            most_kept_bytes(kept, size) / 2**20,
            float(np.median(seconds["one pass"])),
            median_ratio(*by_one),
            spread(ratios(*by_one)),
            median_ratio(seconds["again"], seconds["one pass"]),
            int((results["kept"] != results["one pass"]).sum()),
        )
    yield Record(
        part="passes",
        title="Passes for statistics of the whole image",
        tables=[table],
        remarks=__doc__.split("\n\n", 1)[1].strip(),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", choices=[*NETWORKS, []], metavar="NETWORK")
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--memory", default="1GiB")
    parser.add_argument("--rounds", type=int)
    run_part(measure, parser)


if __name__ == "__main__":
    main()
