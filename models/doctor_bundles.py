"""The small bundles that ``exactile doctor`` runs: ``python models/doctor_bundles.py``.

Both are a U-Net with 2 levels and 4 features. ``labels.bundle`` has small integer weights and scores that never tie, so
that every machine must give the very labels that are recorded in it. ``scores.bundle`` has ordinary weights and gives
its scores, so that the arithmetic of a GPU shows in the last digits.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from exactile.bundle.contract_file import ClassPart  # noqa: E402
from exactile.contract import OutputKind  # noqa: E402
from exactile.session import Session  # noqa: E402
from exactile.sinks.array import ArraySink  # noqa: E402
from exactile.sources.array import ArraySource  # noqa: E402
from exactile_converters.bundles.bundle import BundleContent, write_bundle  # noqa: E402
from exactile_converters.deploy import Normalization, deploy  # noqa: E402
from exactile_converters.prepare.from_onnx import prepare_network  # noqa: E402
from exactile_converters.torch_export import export_onnx  # noqa: E402
from models.integer_weights import integer_weights  # noqa: E402
from models.unet import UNet  # noqa: E402

FOLDER = ROOT / "runtime" / "exactile" / "doctor" / "bundles"
COLORS = ("#000000", "#e69f00", "#56b4e9")
CHANNELS, TILE, SAMPLE = 3, (64, 96), (44, 40)
LARGEST_SAMPLE = 7


def unet() -> UNet:
    return UNet(CHANNELS, len(COLORS), features=4, depth=2)


def exact_network() -> nn.Module:
    """Return a network of integers in, integers everywhere, and scores of different classes that are never equal."""
    net = unet()
    integer_weights(net, 0, channels=CHANNELS, largest_input=LARGEST_SAMPLE)
    generator = torch.Generator().manual_seed(1)
    image = torch.randint(0, LARGEST_SAMPLE + 1, (1, CHANNELS, 64, 64), generator=generator).float()
    head = net.head
    assert head.bias is not None
    with torch.no_grad():
        head.weight.copy_(torch.randint(-2, 3, head.weight.shape, generator=generator))
        head.bias -= net(image).flatten(2).median(dim=2).values[0].round()  # no class wins everywhere
        head.bias += torch.arange(len(COLORS)) / 4
    return net


def ordinary_network() -> nn.Module:
    """Return a network with seeded weights that neither fade nor explode with depth."""
    net, generator = unet(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in net.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(layer.weight, generator=generator)
    return net.eval()


def write(net: nn.Module, name: str, output: OutputKind, folder: Path) -> None:
    """Write one bundle, with a sample of random integers and its result on this machine's CPU."""
    buffer = io.BytesIO()
    export_onnx(net, buffer, CHANNELS, stride=4)
    network = prepare_network(onnx.load_from_string(buffer.getvalue()), name=f"doctor-{name}")
    normalization = Normalization()
    model = deploy(network, image_dtype="uint8", normalization=normalization, output=output)
    sample = np.random.default_rng(0).integers(0, LARGEST_SAMPLE + 1, (*SAMPLE, CHANNELS), dtype=np.uint8)
    sink = ArraySink()
    Session(model, device="cpu").segment(ArraySource(sample), sink, plan="whole")
    content = BundleContent(
        model=model,
        source="PyTorch",
        normalization=normalization,
        classes=[ClassPart(name=f"class {index}", color=color) for index, color in enumerate(COLORS)],
        tile=TILE,
        sample_image=sample,
        sample_result=sink.result,
        notes=("made by models/doctor_bundles.py, for exactile doctor",),
    )
    write_bundle(content, folder / f"{name}.bundle", overwrite=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=FOLDER, help="the folder (default %(default)s)")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    write(exact_network(), "labels", "labels", options.output)
    write(ordinary_network(), "scores", "raw", options.output)
    size = sum(path.stat().st_size for path in options.output.rglob("*") if path.is_file())
    print(f"{options.output}: {size:,} bytes")


if __name__ == "__main__":
    main()
