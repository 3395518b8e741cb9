"""Tiles of FC-DenseNet-56 that start off the stride, on an image of the paper's size.

``python -m benchmarks.alignment [--steps 400] [--side 2304]`` trains the network as ``paper_tables`` does, and tiles a
mirrored micrograph at the paper's largest single pass (2304 x 2304) with tiles of 1152 pixels and two strides, whose
halo is the exact one and a stride more. ``paper_tables``, at 1536, has four tiles only, all of them at edges.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from benchmarks.harness.part import run_part
from benchmarks.harness.record import Record, Table
from benchmarks.networks import prepared
from benchmarks.paper_tables import NETWORKS, OFFSETS, mirrored, trained
from exactile_converters.deploy import Normalization
from exactile_converters.plain_runs.subject import Subject, private_copy
from exactile_converters.verify.sweep import offset_sweep
from exactile_converters.verify.whole import whole_pass
from models.train_stain_unet import MEAN, SCALE, STD

NAME = "FC-DenseNet-56"


def measure(options: argparse.Namespace) -> Iterator[Record]:
    network = prepared(trained(NAME, options.steps), NAME)
    traced = network.trace()
    geometry = traced.geometry
    copy, tile = private_copy(network), min(NETWORKS[NAME][1], options.side)
    subject = Subject(copy, copy.result, traced.features[network.result.name])
    normalization = Normalization(scale=(SCALE,), mean=(MEAN,), std=(STD,))
    points = offset_sweep(
        subject,
        whole_pass(subject, mirrored(options.side), geometry, normalization),
        geometry,
        (tile, tile),
        probability=False,
        progress=lambda stage, done, total: print(f"{stage} {done}/{total}", file=sys.stderr, flush=True),
    )
    table = Table(
        title=f"{NAME}: tiles off the stride",
        columns=OFFSETS,
        note=f"Image {options.side} x {options.side}, {points[0].tiles} tiles, stride {geometry.y.stride}, "
        f"{options.steps} training steps, growth 6.",
    )
    for point in points:
        table.add(point.offset_px, point.rmse, point.different_labels)
    yield Record(part="alignment", title="Alignment of tiles", tables=[table])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--side", type=int, default=2304)
    run_part(measure, parser)


if __name__ == "__main__":
    main()
