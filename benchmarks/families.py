"""Run networks of segmentation-models-pytorch in tiles, and compare with one pass.

``python -m benchmarks.families [--families FPN,PAN] [--encoders resnet18]``. Networks with random weights from a seed,
exported by TorchScript, run over an image of random samples in tiles, within the least of 300, 600, 1200 and 2400 MiB
that suffices beside what the process has before; maps are kept between passes. They are compared with one pass of plain
ONNX Runtime over the image, extended by reflection if the network refuses its size. ``computed by wanted``: pixels, the
mean of all passes. ``labels apart``: weights are random, and scores lie close together; ``closer``: those of them whose
two best scores differ by no more than twice the largest difference. The cost of passes is measured by
``benchmarks.passes``.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch

from benchmarks.harness.part import run_part
from benchmarks.harness.record import Record, Table

FAMILIES = (
    "Unet", "UnetPlusPlus", "Linknet", "FPN", "PAN", "PSPNet", "DeepLabV3", "DeepLabV3Plus", "UPerNet", "Segformer",
    "MAnet",
)  # fmt: skip
ENCODERS = ("efficientnet-b0", "resnet18", "mobilenet_v2")
SIZE, QUICK_SIZE = (1000, 1003), (320, 323)
COLUMNS = (
    "family", "encoder", "levels", "statistics", "kept maps", "kept MiB|.0f", "within MiB", "tiles",
    "computed by wanted|.2f", "labels apart", "closer", "largest difference|.1e", "verdict",
)  # fmt: skip
MEMORY_MIB = (300, 600, 1200, 2400)
EXPORTED_AT = {"PAN": (256, 256)}
"""PAN's attention pools the smallest map three times more."""


def exported(family: str, encoder: str, folder: Path) -> Path:
    from exactile_converters.torch_export import export_onnx
    from tests.support.torchvision_operators import torchvision_declared

    torch.manual_seed(0)
    path = folder / "network.onnx"
    with torchvision_declared(), warnings.catch_warnings():
        import segmentation_models_pytorch as smp

        warnings.simplefilter("ignore")
        network = getattr(smp, family)(encoder, encoder_weights=None, classes=4).eval()
        export_onnx(network, path, 3, EXPORTED_AT.get(family, (64, 64)), exporter="torchscript", stride=32)
    return path


def one_pass(path: Path, image: np.ndarray, domain: tuple[int, int]) -> np.ndarray:
    """Return scores (C, H, W) of plain ONNX Runtime."""
    height, width, _ = image.shape
    seen = np.pad(image, ((0, domain[0] - height), (0, domain[1] - width), (0, 0)), mode="reflect")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = False
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (found,) = session.run(
        None, {session.get_inputs()[0].name: (seen.astype(np.float32) / np.float32(255)).transpose(2, 0, 1)[None]}
    )
    return np.asarray(found[0])


def row(family: str, encoder: str, image: np.ndarray) -> tuple[Any, ...]:
    with tempfile.TemporaryDirectory() as folder:
        return (family, encoder, *compared(exported(family, encoder, Path(folder)), image))


def compared(path: Path, image: np.ndarray) -> tuple[Any, ...]:
    """Return the columns after the names of a network."""
    from exactile.errors import BudgetError, NotTileableError
    from exactile.kept_maps.store import most_kept_bytes
    from exactile.machine.memory import settled_resident_bytes
    from exactile.session import Session
    from exactile.sinks.array import ArraySink
    from exactile.sources.array import ArraySource
    from exactile_converters.deploy import Normalization, deploy, deploy_in_passes, load_network

    options: dict[str, Any] = {
        "image_dtype": "uint8", "output": "raw", "normalization": Normalization(scale=(255.0,)), "strips": False,
        "image_size": image.shape[:2],
    }  # fmt: skip
    network = load_network(path)
    try:
        make = deploy_in_passes if network.trace().obstacles else deploy
        model = make(network, **options)
    except NotTileableError as error:
        obstacle = str(error).splitlines()[1].strip().partition(", so ")[0]
        return (*["-"] * 10, f"no: {obstacle}")
    summary = None
    for mib in MEMORY_MIB:
        sink = ArraySink()
        with suppress(BudgetError):
            summary = Session(model, memory_bytes=settled_resident_bytes() + (mib << 20)).segment(
                ArraySource(image), sink, plan="tile"
            )
            break
    assert summary is not None
    expected = one_pass(path, image, summary.domain)[:, : summary.result[-2], : summary.result[-1]]
    scores = np.sort(expected, axis=0)
    apart = sink.result.argmax(0) != expected.argmax(0)
    close = scores[-1] - scores[-2] <= 2 * np.abs(sink.result - expected).max()
    kept = model.keeping.at(image.shape[:2]) if model.keeping is not None else None
    passes = [*summary.passes, summary]
    return (
        len(model.levels),
        sum(len(level.statistics) for level in model.levels),
        len({one.output for level in kept.levels for one in level.model.writes}) if kept is not None else 0,
        most_kept_bytes(kept, summary.domain) / 2**20 if kept is not None else 0.0,
        mib,
        f"{min(one.tiles for one in passes)} to {max(one.tiles for one in passes)}",
        sum(one.computed_pixels for one in passes) / (len(passes) * summary.wanted_pixels),
        int(apart.sum()),
        int((apart & close).sum()),
        float(np.abs(sink.result - expected).max() / np.abs(expected).max()),
        "exact",
    )


def measure(options: argparse.Namespace) -> Iterator[Record]:
    size = QUICK_SIZE if options.quick else SIZE
    table = Table(title=f"{size[0]} x {size[1]} pixels", columns=COLUMNS)
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    for encoder in options.encoders.split(","):
        for family in options.families.split(","):
            found = row(family, encoder, image)
            print(*found, flush=True)
            table.add(*found)
    yield Record(
        part="families",
        title="Families of networks in tiles and passes",
        tables=[table],
        remarks=__doc__.split("\n\n", 1)[1].strip(),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", default=",".join(FAMILIES))
    parser.add_argument("--encoders", default=",".join(ENCODERS))
    run_part(measure, parser)


if __name__ == "__main__":
    main()
