"""Measure how far a cluster grows: ``python -m benchmarks.cluster_scale [--workers 1000 ...]``.

*Simulated workers* are Dask's own, up to 50 in a process; its scheduler has a process, and the client one, all on two
cores. A block is a task that sleeps and writes a byte into a file, submitted as exactile submits blocks. *Waiting* is
the share of the workers' time in which they had no block, from the begin of the first block to the end of the last one.
Milliseconds are processor time of the scheduler and of the client, for everything that they do meanwhile. *A plan of a
million blocks* is a run over an empty Zarr of 512,000 x 512,000 pixels in blocks of 512, with a network of one
convolution, on two worker processes; it is cancelled after a minute.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil

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
    """Sleep for a while and write a byte; return when the block began and ended."""
    path, seconds = shared
    begin = time.time()
    time.sleep(seconds)
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.pwrite(descriptor, b"1", number)
    finally:
        os.close(descriptor)
    return begin, time.time()


def simulated(client: Any, folder: Path, workers: int, seconds: float, scheduler: psutil.Process) -> tuple[Any, ...]:
    """Return blocks, blocks a second, waiting, seconds until all had begun, milliseconds of scheduler and client,
    bytes.
    """
    path = folder / f"bytes-{workers}-{seconds:g}"
    path.touch()
    count = workers * ROUNDS_OF_BLOCKS
    tasks = Tasks(client, Batch(key=secrets.token_hex(4)), threading.Event())
    before = processor_s(scheduler), time.process_time()
    spans = [span for _, span in tasks.run(sleeping, (str(path), seconds), ((number,) for number in range(count)))]
    taken = processor_s(scheduler) - before[0], time.process_time() - before[1]
    begins, ends = zip(*spans, strict=True)
    elapsed = max(ends) - min(begins)
    busy = sum(end - begin for begin, end in spans)
    started = sorted(begins)[workers - 1] - min(begins)
    milliseconds = [1e3 * one / count for one in taken]
    written = path.read_bytes().count(b"1")
    return count, count / elapsed, 1 - busy / (workers * elapsed), started, *milliseconds, written


def processor_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


LIGHT = {
    "distributed.worker.profile.enabled": False,
    "distributed.worker.http.routes": [],
    "distributed.worker.use-file-locking": False,
    "distributed.admin.tick.interval": "30s",
    "distributed.admin.tick.cycle": "30s",
    "distributed.admin.system-monitor.interval": "30s",
    "distributed.admin.system-monitor.gil.enabled": False,
    "distributed.scheduler.active-memory-manager.start": False,
    "distributed.comm.timeouts.connect": "300s",
}
"""Checks that Dask's workers repeat many times a second, each for itself: real machines do not share two cores."""

IN_A_PROCESS = 50
"""Simulated workers."""

START_S = 600.0


async def scheduler(file: Path) -> None:
    """Write the address, and serve."""
    from distributed import Scheduler

    async with Scheduler(port=0, dashboard=False) as serving:
        await asyncio.to_thread(file.write_text, serving.address)
        await serving.finished()


async def workers(address: str, count: int) -> None:
    """Simulate ``count`` workers until the scheduler ends."""
    from distributed import Worker

    with tempfile.TemporaryDirectory() as folder:
        found = [
            await Worker(address, nthreads=1, memory_limit=0, dashboard=False, local_directory=folder)
            for _ in range(count)
        ]
        await asyncio.gather(*(worker.finished() for worker in found))


@contextmanager
def simulated_cluster(count: int, folder: Path) -> Iterator[tuple[Any, psutil.Process]]:
    """Yield a client, and the scheduler's process."""
    from distributed import Client

    file = folder / f"scheduler-{count}"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    command = [sys.executable, "-m", "benchmarks.cluster_scale"]
    processes = [subprocess.Popen([*command, "--as-scheduler", file], **quiet)]
    try:
        while not (file.exists() and file.read_text()):
            time.sleep(0.1)
        address = file.read_text()
        for first in range(0, count, IN_A_PROCESS):
            of_process = str(min(IN_A_PROCESS, count - first))
            processes.append(subprocess.Popen([*command, "--as-workers", address, of_process], **quiet))
        with Client(address, timeout=300) as client:
            client.wait_for_workers(count, timeout=START_S)
            yield client, psutil.Process(processes[0].pid)
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()


def simulations(options: argparse.Namespace, folder: Path) -> Table:
    import dask

    dask.config.set(LIGHT)
    table = Table(
        title="Simulated workers",
        columns=("workers", "seconds a block|.0f", "blocks", "blocks a second|.1f", "waiting|.3f",
                 "all have begun after s|.1f", "scheduler, ms a block|.1f", "client, ms a block|.1f", "bytes written"),
    )  # fmt: skip
    for workers in (20,) if options.quick else options.workers:
        begin = time.monotonic()
        with simulated_cluster(workers, folder) as (client, scheduler):
            print(workers, f"workers started in {time.monotonic() - begin:.0f} s", file=sys.stderr)
            for seconds in (1.0,) if options.quick else options.seconds:
                row = (workers, seconds, *simulated(client, folder, workers, seconds, scheduler))
                print(*row, file=sys.stderr)
                table.add(*row)
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
        tables = [simulations(options, Path(name)), *([] if options.simulate_only else [million(options, Path(name))])]
    remarks = (__doc__ or "").split("\n\n", 1)[1].strip()
    yield Record(part="cluster_scale", title="How far a cluster grows", tables=tables, remarks=remarks)


def main() -> None:
    import dask

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--seconds", type=float, nargs="+", default=[5.0, 30.0], help="of a block")
    parser.add_argument("--simulate-only", action="store_true", help="leave out the plan of a million blocks")
    parser.add_argument("--as-scheduler", type=Path, metavar="FILE", help=argparse.SUPPRESS)
    parser.add_argument("--as-workers", nargs=2, metavar=("ADDRESS", "COUNT"), help=argparse.SUPPRESS)
    options, _ = parser.parse_known_args()
    if options.as_scheduler or options.as_workers:
        dask.config.set(LIGHT)
        served = (
            scheduler(options.as_scheduler)
            if options.as_scheduler
            else workers(options.as_workers[0], int(options.as_workers[1]))
        )
        asyncio.run(served)
        return
    run_part(measure, parser)


if __name__ == "__main__":
    main()
