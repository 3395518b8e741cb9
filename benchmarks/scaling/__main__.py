"""Time and memory against image size, halo and threads. ``python -m benchmarks.scaling``"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks.harness.part import run_part
from benchmarks.harness.plot import curves
from benchmarks.harness.record import Record, Table
from benchmarks.scaling import halo, image_size, large_image, many_cores, threads
from benchmarks.side_by_side.asking import PEERS, Ask
from benchmarks.side_by_side.subject import write_image, write_network

Draw = Callable[[Path], None]


OUTPUTS = ["tif", "ome.tif", "zarr"]
FAST = ["U-Net, 16 features, depth 1", "U-Net, 16 features, depth 4"]
TITLES = {
    "size": "Scaling with the image",
    "halo": "Scaling with the halo",
    "threads": "Scaling with threads",
    "bounded": "Memory within a budget",
    "free": "Throughput without inference",
    "many-cores": "What many cores cannot do at once",
}


def measure(options: argparse.Namespace) -> Iterator[Record]:
    with tempfile.TemporaryDirectory(dir=options.directory) as folder:
        chosen = options.part or options.step
        for step in [chosen] if chosen else TITLES:
            tables, pictures = run_step(step, options, Path(folder))
            yield Record(
                part=f"scaling-{step}",
                module="scaling",
                arguments=f"--step {step}",
                title=TITLES[step],
                tables=tables,
                pictures=pictures,
            )


def run_step(step: str, options: argparse.Namespace, place: Path) -> tuple[list[Table], dict[str, Draw]]:
    quick, rounds = options.quick, options.rounds or (1 if options.quick else 3)
    if step == "size":
        sides = [1024, 2048] if quick else [1024, 2048, 4096, 8192]
        table, memory = image_size.measure(ask_in(place, options), place, sides, min(rounds, 2))
        return [table], {"scaling-size.png": partial(draw_memory, memory)}
    if step == "halo":
        shape = (1024, 1024) if quick else (1536, 1536)
        return [halo.measure(shape, rounds, FAST if quick else None)], {}
    if step == "threads":
        side = 1024 if quick else 2048
        ask = replace(ask_in(place, options), image=write_image(place / "threads.tif", side))
        return [threads.measure(ask, rounds, ask.threads, side)], {}
    if step == "bounded":
        return [large_image.bounded(place, [4000] if quick else [5000, 20000])], {}
    if step == "many-cores":
        cores = options.threads or sorted({1, len(os.sched_getaffinity(0))})
        return [many_cores.measure(place, options.side or (4096 if quick else 16384), cores, rounds)], {}
    return [large_image.free(place, [10000] if quick else [10000, 40000], OUTPUTS[:1] if quick else OUTPUTS)], {}


def ask_in(place: Path, options: argparse.Namespace) -> Ask:
    network = place / "network"
    if not network.exists():
        write_network(network, image_size.FEATURES)
    threads = len(os.sched_getaffinity(0))
    return Ask(
        network=network, image=place / "none", output=place / "labels.tif", threads=threads, peers=options.peers
    )  # fmt: skip


def draw_memory(memory: image_size.Curves, path: Path) -> None:
    title = "Peak memory of the process against the image's size (U-Net, 16 features)"
    curves(path, title, memory, x="side of the image, pixels", y="peak MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("part", nargs="?", choices=TITLES, help="only this one")
    parser.add_argument("--step", choices=TITLES, help="the same")
    parser.add_argument(
        "--threads", type=int, nargs="+", help="of many-cores: how many cores may be used, each in turn"
    )
    parser.add_argument("--side", type=int, help="of many-cores: the image's side in pixels")
    parser.add_argument("--peers", type=Path, default=PEERS)
    parser.add_argument("--directory", type=Path, help="where files go meanwhile (default: a temporary folder)")
    run_part(measure, parser)


if __name__ == "__main__":
    main()
