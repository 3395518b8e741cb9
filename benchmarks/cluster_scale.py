"""How far a cluster grows: ``python -m benchmarks.cluster_scale [--workers 100 ...]``.

*Simulated workers* are Dask's own, many in one process with its scheduler and the client, on two cores; a block is a
task that sleeps and writes a byte into a file, submitted as exactile submits blocks. *Waiting* is the share of the
workers' time in which they had no block, from the first block's begin to the last one's end. *A plan of a million
blocks* is a run over an empty Zarr of 512,000 x 512,000 pixels in blocks of 512, with a network of one convolution, on
two worker processes; it is cancelled after a minute.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cluster import one_convolution
from benchmarks.harness.part import run_part
from benchmarks.harness.record import Record, Table
from benchmarks.harness.worker import resident_bytes
from exactile.distributed import segment
from exactile.distributed.job import Batch
from exactile.distributed.tasks import Tasks
from exactile.errors import CancelledError

ROUNDS_OF_BLOCKS = 4
"""Blocks for each worker."""

EDGE, BLOCKS_ALONG = 512, 1000
WATCHED_S = 60.0


def sleeping(_batch: Batch, shared: tuple[str, float], number: int) -> tuple[float, float]:
    """A block that takes a while and writes a byte; when it began and ended."""
    path, seconds = shared
    begin = time.time()
    time.sleep(seconds)
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.pwrite(descriptor, b"1", number)
    finally:
        os.close(descriptor)
    return begin, time.time()


def simulated(client: Any, folder: Path, workers: int, seconds: float) -> tuple[float, float, float, int]:
    """Blocks a second, the share of time that workers wait, seconds until all had begun, bytes that were written."""
    path = folder / "bytes"
    path.touch()
    count = workers * ROUNDS_OF_BLOCKS
    tasks = Tasks(client, Batch(key=secrets.token_hex(4)), threading.Event())
    spans = [span for _, span in tasks.run(sleeping, (str(path), seconds), ((number,) for number in range(count)))]
    begins, ends = zip(*spans, strict=True)
    elapsed = max(ends) - min(begins)
    busy = sum(end - begin for begin, end in spans)
    started = sorted(begins)[workers - 1] - min(begins)
    return count / elapsed, 1 - busy / (workers * elapsed), started, path.read_bytes().count(b"1")


LIGHT = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "30s",
    "distributed.admin.tick.cycle": "30s",
    "distributed.admin.system-monitor.interval": "30s",
    "distributed.admin.system-monitor.gil.enabled": False,
    "distributed.scheduler.active-memory-manager.start": False,
    "distributed.comm.timeouts.connect": "300s",
}
"""What Dask's workers look at many times a second, each for itself: on real machines these do not share two cores."""


def simulations(options: argparse.Namespace, folder: Path) -> Table:
    import dask
    from distributed import Client, LocalCluster

    dask.config.set(LIGHT)
    table = Table(
        title="Simulated workers",
        columns=("workers", "seconds a block|.0f", "blocks", "blocks a second|.0f", "waiting|.2f",
                 "all have begun after s|.1f", "bytes written"),
    )  # fmt: skip
    for workers in (20,) if options.quick else options.workers:
        cluster = LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=False,
            memory_limit=0,
            dashboard_address="127.0.0.1:0",
            silence_logs=50,
        )
        with Client(cluster, timeout=300) as client:
            for seconds in (1.0,) if options.quick else (5.0, 30.0):
                row = (workers, seconds, workers * ROUNDS_OF_BLOCKS, *simulated(client, folder, workers, seconds))
                print(*row, file=sys.stderr)
                table.add(*row)
        with suppress(Exception):  # so many in one process do not always answer when they are closed
            cluster.close(timeout=30)
    return table


def million(options: argparse.Namespace, folder: Path) -> Table:
    import zarr
    from distributed import Client, LocalCluster

    side = EDGE * (100 if options.quick else BLOCKS_ALONG)
    zarr.create_array(folder / "image.zarr", shape=(side, side, 3), dtype=np.uint8, chunks=(512, 512, 3))
    table = Table(
        title="A plan of many blocks", columns=("blocks", "seconds", "blocks done", "MiB of scheduler and client")
    )
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, memory_limit=0, dashboard_address="127.0.0.1:0", silence_logs=50
        ) as cluster,
        Client(cluster) as client,
    ):
        before, begin, done = resident_bytes(), time.monotonic(), [0]
        seen: list[tuple[float, int, float]] = []

        def progress(pixels: int, _total: int) -> None:
            done[0] = pixels // EDGE**2
            seen.append((time.monotonic() - begin, done[0], (resident_bytes() - before) / 2**20))

        run = segment(
            client, one_convolution(), folder / "image.zarr", folder / "labels.zarr", block=EDGE, plan="tile",
            threads=1, memory_bytes=1 << 30, progress=progress,
        )  # fmt: skip
        end = time.monotonic() + (10 if options.quick else WATCHED_S)
        while time.monotonic() < end and not run.done:
            time.sleep(0.2)
        run.cancel()
        with suppress(CancelledError):
            run.result()
    blocks = (side // EDGE) ** 2
    for share in (0, 0.1, 0.25, 0.5, 1):
        at, count, mib = seen[min(round(share * len(seen)), len(seen) - 1)]
        table.add(blocks, f"{at:.1f}", count, f"{mib:.0f} more than before")
    return table


def measure(options: argparse.Namespace) -> Iterator[Record]:
    with tempfile.TemporaryDirectory() as name:
        tables = [simulations(options, Path(name)), million(options, Path(name))]
    remarks = (__doc__ or "").split("\n\n", 1)[1].strip()
    yield Record(part="cluster_scale", title="How far a cluster grows", tables=tables, remarks=remarks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[20, 100])
    run_part(measure, parser)


if __name__ == "__main__":
    main()
