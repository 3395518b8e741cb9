"""Megabytes of pixels a second: TiffSink, fed with boxes as a run writes them, against tifffile's own writer.

Both compress with the same codec in two threads and end with the file on the disk. Run in turn, medians of
several rounds; machine and versions are printed with the result::

    python benchmarks/write_speed.py [--size 8192] [--rounds 3]
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile

from exactile.geometry import Box, Span
from exactile.sinks.npy import NpySink
from exactile.sinks.protocol import ResultSpec, Sink, WritePlan
from exactile.sinks.pyramid import level_grids
from exactile.sinks.tiff import TiffSink

WORKERS = 2
ZLIB_LEVEL = 6  # TiffSink's for labels
BOX_ROWS, BOX_COLUMNS = 832, 1000  # not aligned with the file's tiles


def blobby_labels(size: int, classes: int = 5) -> np.ndarray:
    """(size, size) uint8: smooth regions of about a hundred pixels with slightly ragged edges."""
    random = np.random.default_rng(0)
    best = np.full((size, size), -np.inf, np.float32)
    labels = np.zeros((size, size), np.uint8)
    for label in range(classes):
        score = smooth_field(random, size, 64) + 0.05 * smooth_field(random, size, 2)
        labels[score > best] = label
        np.maximum(best, score, out=best)
    return labels


def smooth_field(random: np.random.Generator, size: int, period: int) -> np.ndarray:
    """(size, size) float32: noise on a grid of ``period`` pixels, linearly interpolated."""
    coarse = random.standard_normal((size // period + 2, size // period + 2), np.float32)
    whole, part = np.divmod(np.arange(size), period)
    weight = (part / period).astype(np.float32)
    rows = coarse[whole] * (1 - weight)[:, None] + coarse[whole + 1] * weight[:, None]
    return rows[:, whole] * (1 - weight) + rows[:, whole + 1] * weight


def spans(size: int, step: int) -> list[Span]:
    return [Span(start, min(size, start + step)) for start in range(0, size, step)]


def write_with_sink(sink: Sink, labels: np.ndarray) -> None:
    height, width = labels.shape
    sink.begin(ResultSpec(height=height, width=width, channels=0, dtype=labels.dtype.name))
    for rows in spans(height, BOX_ROWS):
        for columns in spans(width, BOX_COLUMNS):
            box = Box(rows, columns)
            sink.write(box, labels[box.slices()])
    sink.finish()


def write_with_tifffile(path: Path, labels: np.ndarray, compression: str) -> None:
    """One page, as tifffile's one call writes it."""
    level = {"zlib": {"level": ZLIB_LEVEL}, "zstd": {"level": 1}}.get(compression)
    with path.open("w+b") as file:
        tifffile.imwrite(
            file,
            labels,
            bigtiff=True,
            tile=(512, 512),
            photometric="minisblack",
            compression=compression,
            compressionargs=level,
            maxworkers=WORKERS,
        )
        os.fsync(file.fileno())


@dataclass(kw_only=True)
class Times:
    """Of every round: seconds on the clock and of processor time."""

    clock_s: list[float] = field(default_factory=list)
    processor_s: list[float] = field(default_factory=list)

    def measure(self, write: Callable[[], None], path: Path) -> None:
        path.unlink(missing_ok=True)
        clock_s, processor_s = time.perf_counter(), time.process_time()
        write()
        self.clock_s.append(time.perf_counter() - clock_s)
        self.processor_s.append(time.process_time() - processor_s)

    def speeds(self, pixel_bytes: int) -> tuple[float, float]:
        """Medians: MB a second on the clock, MB a second of processor time."""
        megabytes = pixel_bytes / 1e6
        return megabytes / statistics.median(self.clock_s), megabytes / statistics.median(self.processor_s)


def write_pyramid_with_tifffile(path: Path, labels: np.ndarray, compression: str) -> None:
    """All levels from memory, one call each."""
    level = {"zlib": {"level": ZLIB_LEVEL}, "zstd": {"level": 1}}.get(compression)
    with path.open("w+b") as file:
        with tifffile.TiffWriter(file, bigtiff=True) as writer:
            for number in range(levels_of(labels)):
                writer.write(
                    np.ascontiguousarray(labels[:: 2**number, :: 2**number]),
                    tile=(512, 512),
                    photometric="minisblack",
                    compression=compression,
                    compressionargs=level,
                    subfiletype=1 if number else 0,
                    maxworkers=WORKERS,
                )
        os.fsync(file.fileno())


def levels_of(labels: np.ndarray) -> int:
    return len(level_grids(*labels.shape, 512, pyramid=True))


def compare(labels: np.ndarray, compression: str, folder: Path, rounds: int, *, pyramid: bool) -> None:
    ours, theirs = folder / "ours.tif", folder / "theirs.tif"
    sink, journaled, peer = Times(), Times(), Times()
    write_theirs = write_pyramid_with_tifffile if pyramid else write_with_tifffile
    for _ in range(rounds):
        for times, resumable in ((sink, False), (journaled, True)):
            made = TiffSink(ours, compression=compression, workers=WORKERS, pyramid=pyramid, resumable=resumable,
                            overwrite=True)  # fmt: skip
            times.measure(partial(write_with_sink, made, labels), ours)
        peer.measure(lambda: write_theirs(theirs, labels, compression), theirs)
    if not np.array_equal(tifffile.imread(ours), labels):
        raise SystemExit("TiffSink wrote wrong pixels")
    sink_speed, sink_processor_speed = sink.speeds(labels.nbytes)
    peer_speed, peer_processor_speed = peer.speeds(labels.nbytes)
    kind = "pyramid" if pyramid else "plain"
    print(
        f"{compression:5} {kind:8} TiffSink {sink_speed:5.0f} MB/s "
        f"({sink_processor_speed:5.0f} MB a processor second)  "
        f"tifffile {peer_speed:5.0f} ({peer_processor_speed:5.0f})  "
        f"ratio {sink_speed / peer_speed:.2f} ({sink_processor_speed / peer_processor_speed:.2f})  "
        f"with journal {journaled.speeds(labels.nbytes)[0] / peer_speed:.2f}  "
        f"file {ours.stat().st_size / 1e6:.2f} / {theirs.stat().st_size / 1e6:.2f} MB"
    )


def measure_npy(labels: np.ndarray, folder: Path, rounds: int) -> None:
    path, times = folder / "ours.npy", Times()
    for _ in range(rounds):
        times.measure(lambda: write_with_sink(NpySink(path), labels), path)
    speed, processor_speed = times.speeds(labels.nbytes)
    print(f"npy    NpySink  {speed:5.0f} MB/s ({processor_speed:5.0f} MB a processor second)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=8192, help="edge of the label map in pixels")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    labels = blobby_labels(arguments.size)
    plan = WritePlan(rows=spans(arguments.size, BOX_ROWS), columns=spans(arguments.size, BOX_COLUMNS))
    spec = ResultSpec(height=arguments.size, width=arguments.size, channels=0, dtype="uint8")
    buffer_bytes = TiffSink("unused.tif", workers=WORKERS).buffer_bytes(spec, plan)
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"numpy {np.__version__}, tifffile {tifffile.__version__}, imagecodecs {imagecodecs.__version__}")
    print(
        f"{arguments.size} x {arguments.size} uint8 labels in boxes of {BOX_ROWS} x {BOX_COLUMNS}, tiles of 512; "
        f"TiffSink holds at most {buffer_bytes / 1e6:.1f} MB; median of {arguments.rounds}"
    )
    with tempfile.TemporaryDirectory() as folder:
        for compression in ("zlib", "zstd", "lzw", "none"):
            compare(labels, compression, Path(folder), arguments.rounds, pyramid=False)
            compare(labels, compression, Path(folder), arguments.rounds, pyramid=True)
        measure_npy(labels, Path(folder), arguments.rounds)


if __name__ == "__main__":
    main()
