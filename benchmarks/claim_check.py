"""Measure the cost of the check before use: its seconds for every test network, and for stain_unet as a file.

``python -m benchmarks.claim_check [--quick]`` reads each network and runs ``check_claim``, with strips, within the
memory that it takes by default.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.harness.part import run_part
from benchmarks.harness.record import Record, Table
from benchmarks.harness.worker import ROOT

COLUMNS = ("network", "halo px", "seconds|.2f", "what it found")
QUICK = ("unet_d2", "resnet_unet")


def networks(folder: Path, *, quick: bool) -> Iterator[tuple[str, Path]]:
    from tests.support.nets import NETS, onnx_file

    yield "stain_unet", ROOT / "models" / "stain_unet.onnx"
    for name in QUICK if quick else NETS:
        yield name, onnx_file(folder, name)


def measure(options: argparse.Namespace) -> Iterator[Record]:
    from exactile_converters.bundles.proven import verification_of
    from exactile_converters.deploy import load_network
    from exactile_converters.verify.claim_check import check_claim

    table, seconds = Table(title="The check of each network", columns=COLUMNS), []
    with tempfile.TemporaryDirectory() as folder:
        for name, path in networks(Path(folder), quick=options.quick):
            network = load_network(path)
            geometry = network.trace().geometry
            halo = max(geometry.y.halo_before, geometry.y.halo_after) if geometry is not None else None
            begin = time.perf_counter()
            found = check_claim(network)
            seconds.append(time.perf_counter() - begin)
            table.add(name, halo, seconds[-1], found.tiles or found.strips or verification_of(found).sentence)
            print(f"{name}: {seconds[-1]:.2f} s", file=sys.stderr)
    remarks = f"{min(seconds):.2f} to {max(seconds):.2f} s, median {np.median(seconds):.2f} s."
    yield Record(part="claim_check", title="The check before use", tables=[table], remarks=remarks)


def main() -> None:
    run_part(measure, argparse.ArgumentParser(description=__doc__))


if __name__ == "__main__":
    main()
