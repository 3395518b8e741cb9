"""What the serial parts of a run allow: reading, cropping and writing when inference costs nothing.

Each run is done twice, in processes of their own: once for its speed, once with a meter. What one thread does alone
and what needs the lock of the interpreter takes its seconds for a gigapixel on any number of cores; the largest of
these is a ceiling that no machine breaks.
"""

from __future__ import annotations

import os
import shutil
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from benchmarks.harness.record import Table
from benchmarks.harness.worker import run_worker
from tests.runs.test_bounded_memory import write_slide

MIB = 1 << 20
MEMORY_BYTES = 2 << 30
TILE = 2048
CHUNK = 256
COLUMNS = (
    "from, to", "cores", "Mpx/s|.0f", "ceiling, Mpx/s|.0f", "interpreter|.2f", "reading thread|.2f", "handing over|.2f",
    "writing thread|.2f", "main thread|.2f", "event loop|.2f", "all threads|.1f", "peak MiB|.0f",
)  # fmt: skip
NOTE = (
    f"Tiles of {TILE} with a halo of 24, chunks of {CHUNK}, resumable results with pyramids, `--memory "
    f"{MEMORY_BYTES >> 30}GiB`. From *interpreter* on: seconds for a gigapixel; *interpreter* is what all threads do "
    "outside codecs, file calls and conversions, *all threads* all that they do. The ceiling is a gigapixel by the "
    "largest of the seconds before. Medians; the network's stand-in is left out."
)
SERIAL = ("read", "infer", "write", "main", "event loop")


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """From one kind of file to another."""

    source: str
    output: str
    compression: str

    @property
    def title(self) -> str:
        return f"{self.source}, {self.output} ({self.compression})"


WAYS = (
    Way(source="jpeg.tif", output="labels.tif", compression="zlib"),
    Way(source="jpeg.tif", output="labels.tif", compression="zstd"),
    Way(source="plain.tif", output="labels.tif", compression="zstd"),
    Way(source="image.zarr", output="labels.zarr", compression="zstd"),
)


def measure(place: Path, side: int, cores: Sequence[int], rounds: int) -> Table:
    """Measure every way on each available number of cores; an image is made once, (side, side) pixels."""
    table = Table(title=f"What is serial, {side} x {side} pixels", columns=COLUMNS, note=NOTE)
    there = len(os.sched_getaffinity(0))
    for name, write in WRITERS.items():
        write(place / name, side)
        for way in (way for way in WAYS if way.source == name):
            for count in sorted({min(count, there) for count in cores}):
                add_way(table, place, way, count, rounds)
        remove(place / name)
    return table


def add_way(table: Table, place: Path, way: Way, cores: int, rounds: int) -> None:
    request = {
        "image": str(place / way.source),
        "output": str(place / way.output),
        "compression": way.compression,
        "memory_bytes": MEMORY_BYTES,
        "tile": TILE,
        "cores": cores,
    }
    runs = {metered: [] for metered in (False, True)}
    for _ in range(rounds):
        for metered, found in runs.items():
            found.append(run_worker("benchmarks.scaling.free_engine", {**request, "metered": metered}))
            remove(place / way.output)
    speed = statistics.median(run["megapixels"] / run["total_s"] for run in runs[False])
    peak = max(run["peak_bytes"] for run in runs[False])
    interpreter = _per_gigapixel(runs[True], lambda run: run["interpreter_s"])
    serial = [_per_gigapixel(runs[True], lambda run, stage=stage: run["serial_s"][stage]) for stage in SERIAL]
    threads = _per_gigapixel(runs[True], lambda run: sum(run["threads_s"].values()))
    table.add(way.title, cores, speed, 1000 / max(interpreter, *serial), interpreter, *serial, threads, peak / MIB)


def _per_gigapixel(runs: list[dict[str, Any]], seconds: Callable[[dict[str, Any]], float]) -> float:
    return statistics.median(seconds(run) * 1000 / run["megapixels"] for run in runs)


def write_jpeg(path: Path, side: int) -> None:
    write_slide(path, side, side)


def write_plain(path: Path, side: int) -> None:
    options = {"tile": (CHUNK, CHUNK), "photometric": "rgb", "bigtiff": True}
    tifffile.imwrite(path, blocks(side), **options)


def write_zarr(path: Path, side: int) -> None:
    import zarr

    stored = zarr.create_array(path, shape=(side, side, 3), chunks=(CHUNK, CHUNK, 3), dtype="uint8")
    stored[...] = blocks(side)


def blocks(side: int) -> np.ndarray:
    """Return squares of 16 x 16 pixels of one colour each, (side, side, 3) uint8."""
    coarse = np.random.default_rng(0).integers(0, 255, (-(-side // 16), -(-side // 16), 3), dtype=np.uint8)
    return np.repeat(np.repeat(coarse, 16, 0), 16, 1)[:side, :side]


WRITERS: dict[str, Callable[[Path, int], None]] = {
    "jpeg.tif": write_jpeg,
    "plain.tif": write_plain,
    "image.zarr": write_zarr,
}


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()
