"""Run networks of MONAI, nnU-Net and torchvision in tiles and passes, and compare with one pass.

``python -m benchmarks.libraries [NETWORK ...]``. Networks of usual sizes, with random weights from a seed; measured as
``benchmarks.families`` does.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np

from benchmarks.families import COLUMNS, QUICK_SIZE, SIZE, compared
from benchmarks.harness.part import run_part
from benchmarks.harness.record import Record, Table
from tests.support.library_networks import PACKAGES, USUAL, usual


def exported(name: str, folder: Path) -> Path:
    from exactile_converters.torch_export import export_onnx

    path = folder / "network.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export_onnx(usual(name), path, 3, (64, 96), exporter="torchscript", stride=32)
    return path


def measure(options: argparse.Namespace) -> Iterator[Record]:
    size = QUICK_SIZE if options.quick else SIZE
    table = Table(title=f"{size[0]} x {size[1]} pixels", columns=("network", "package", *COLUMNS[2:]))
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    for name in options.networks or USUAL:
        package = PACKAGES.get(name.partition("_")[0], "torchvision" if "mobilenet" in name else "")
        with tempfile.TemporaryDirectory() as folder:
            found = compared(exported(name, Path(folder)), image)
        print(name, *found, flush=True)
        table.add(name, f"{package} {version(package)}" if package else "", *found)
    yield Record(
        part="libraries",
        title="Networks of libraries in tiles and passes",
        tables=[table],
        remarks=__doc__.split("\n\n", 1)[1].strip(),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=[], choices=[*USUAL, []], metavar="NETWORK")
    run_part(measure, parser)


if __name__ == "__main__":
    main()
