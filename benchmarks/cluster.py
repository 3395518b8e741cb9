"""Run blocks of one image on a local Dask cluster, beside one process: ``python -m benchmarks.cluster [--rounds 3]``.

A U-Net of depth 4 with 16 features over a stained section, from a tiled deflate TIFF to an OME-Zarr with its levels.
*One process* has two threads; *two workers* have one thread each and are started before, their engines are not.
*Overhead of a block* is the time of a run over many blocks that hardly compute anything (one convolution of 1 x 1,
strips of 512 rows), minus that of the same run by one process, divided by the number of blocks.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import onnx
from torch import nn

from benchmarks.harness.part import run_part
from benchmarks.harness.record import Record, Table
from benchmarks.harness.turns import in_turn, ratios, spread
from benchmarks.networks import deployed, exported, unet
from benchmarks.side_by_side.subject import DEPTH, write_image
from exactile.contract import DeployedModel
from exactile.distributed import ClusterSummary, segment
from exactile.session import Session
from exactile.sinks.zarr.sink import ZarrSink
from exactile.sources.open import open_source
from exactile_converters.deploy import deploy
from exactile_converters.prepare.from_onnx import prepare_network

MEMORY = 2 << 30
OVERHEAD_BLOCK = 512


def alone(model: DeployedModel, image: Path, target: Path, threads: int) -> None:
    source = open_source(image)
    session = Session(model, memory_bytes=MEMORY, threads=threads)
    session.segment(source, ZarrSink(target, overwrite=True))
    session.close()
    source.close()


def in_blocks(client: Any, model: DeployedModel, image: Path, target: Path, block: int) -> ClusterSummary:
    run = segment(client, model, image, target, block=block, threads=1, memory_bytes=MEMORY // 2, overwrite=True)
    return run.result()


def one_convolution() -> DeployedModel:
    net = nn.Conv2d(3, 2, 1).eval()
    return deploy(
        prepare_network(onnx.load_from_string(exported(net)), name="one"), image_dtype="uint8", output="labels"
    )


def measure(options: argparse.Namespace) -> Iterator[Record]:
    from distributed import Client, LocalCluster

    side = 2048 if options.quick else options.side
    rounds = 1 if options.quick else options.rounds
    table = Table(
        title=f"U-Net, 16 features, {side} x {side}",
        columns=("way", "seconds|.1f", "by one process|.2f", "spread", "blocks", "computed by wanted|.2f"),
    )
    overhead = Table(
        title="Overhead of a block", columns=("blocks", "one process s|.2f", "cluster s|.2f", "ms a block|.1f")
    )
    with (
        tempfile.TemporaryDirectory() as name,
        LocalCluster(
            n_workers=2, threads_per_worker=1, memory_limit=0, dashboard_address="127.0.0.1:0", silence_logs=50
        ) as cluster,
        Client(cluster) as client,
    ):
        folder = Path(name)
        model, image, target = (
            deployed(unet(16, DEPTH), "unet"),
            write_image(folder / "image.tif", side),
            folder / "a.zarr",
        )
        told: dict[str, ClusterSummary] = {}

        def blocks(block: int) -> None:
            told[f"two workers, blocks of {block}"] = in_blocks(client, model, image, target, block)

        ways = {"one process, two threads": partial(alone, model, image, target, 2)}
        ways |= {f"two workers, blocks of {block}": partial(blocks, block) for block in (2048, 4096) if block < side}
        seconds = in_turn(ways, rounds, warm_up=0, say="cluster")
        floor = seconds["one process, two threads"]
        for way, taken in seconds.items():
            by, summary = ratios(taken, floor), told.get(way)
            table.add(
                way, statistics.median(taken), statistics.median(by), spread(by),
                summary and summary.blocks, summary and summary.computed_pixels / summary.wanted_pixels,
            )  # fmt: skip
        small = one_convolution()
        found: list[ClusterSummary] = []
        both = in_turn(
            {
                "one": partial(alone, small, image, target, 2),
                "cluster": lambda: found.append(in_blocks(client, small, image, target, OVERHEAD_BLOCK)),
            },
            rounds,
            warm_up=1,
        )
        one, other = (statistics.median(both[way]) for way in ("one", "cluster"))
        overhead.add(found[-1].blocks, one, other, 1e3 * (other - one) / found[-1].blocks)
    remarks = (__doc__ or "").split("\n\n", 1)[1].strip()
    yield Record(part="cluster", title="Blocks on a cluster", tables=[table, overhead], remarks=remarks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", type=int, default=8192)
    run_part(measure, parser)


if __name__ == "__main__":
    main()
