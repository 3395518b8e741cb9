"""How fast a row-major sweep reads a tiled TIFF, against tifffile's own ``page.asarray()``.

Both decode the whole image with as many threads; the sweep reads boxes, with the cache that its plan asks for: side by
side, and overlapping as those of a tile plan. Rates are of image bytes, each pixel counted once. The two take
turns, so that a noisy machine disturbs both, and medians are compared.

    python benchmarks/read_speed.py [--size 8192] [--rounds 3] [--workers N] [--directory DIR]
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile

from exactile.geometry import Box, Span
from exactile.sources.protocol import ReadPlan
from exactile.sources.tiff import TiffSource

CHUNK_PX = 256
BOX_PX = 1024
HALO_PX = 96


def synthesize(size_px: int) -> np.ndarray:
    """An image (H, W, 3) uint8 that compresses about as well as stained tissue: smooth shapes and some noise."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[0:size_px, 0:size_px].astype(np.float32)
    image = np.empty((size_px, size_px, 3), np.uint8)
    for channel, scale in enumerate((37.0, 53.0, 71.0)):
        shape = 150 + 60 * np.sin(y / scale) * np.cos(x / (scale + 9))
        shape += rng.integers(-6, 7, shape.shape)
        image[..., channel] = shape.clip(0, 255).astype(np.uint8)
    return image


def spans_with_halo(size_px: int, halo_px: int) -> list[Span]:
    """Boxes of ``BOX_PX`` and a halo on both sides, kept within the image."""
    return [
        Span(max(0, start - halo_px), min(size_px, start + BOX_PX + halo_px)) for start in range(0, size_px, BOX_PX)
    ]


def time_tifffile(path: Path, workers: int) -> float:
    with tifffile.TiffFile(path) as tiff:
        start = time.perf_counter()
        tiff.pages[0].asarray(maxworkers=workers)
        return time.perf_counter() - start


def time_sweep(path: Path, workers: int, halo_px: int) -> tuple[float, int, int]:
    """Seconds, chunks decoded, bytes of cache granted."""
    source = TiffSource(path, workers=workers)
    spans = spans_with_halo(source.height, halo_px)
    plan = ReadPlan(rows=spans, columns=spans_with_halo(source.width, halo_px))
    longest = max(span.length for span in spans)
    buffer = np.empty(longest * longest * source.channels, source.dtype)
    start = time.perf_counter()
    granted = source.cache_bytes(plan)
    source.prepare(plan, cache_bytes=granted)
    for rows in plan.rows:
        for columns in plan.columns:
            shape = (rows.length, columns.length, source.channels)
            source.read(Box(rows, columns), buffer[: np.prod(shape)].reshape(shape))
    seconds = time.perf_counter() - start
    decoded = source.count().chunks_decoded
    source.close()
    return seconds, decoded, granted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=8192, help="height and width in pixels")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--directory", type=Path, help="where the test files go (default: a temporary folder)")
    options = parser.parse_args()
    print(
        f"{platform.machine()}, {options.workers} threads; Python {platform.python_version()}, numpy {np.__version__},"
        f" tifffile {tifffile.__version__}, imagecodecs {imagecodecs.__version__}\n"
        f"{options.size} x {options.size} RGB uint8, tiles of {CHUNK_PX}, boxes of {BOX_PX};"
        f" MB/s, median of {options.rounds}\n"
    )
    print(
        f"{'compression':<12} {'halo':>4} {'sweep':>8} {'asarray':>8} {'ratio':>6}"
        f" {'decoded/stored':>15} {'cache MB':>9}"
    )
    image = synthesize(options.size)
    with tempfile.TemporaryDirectory(dir=options.directory) as folder:
        for name, arguments in {
            "jpeg": {"compression": "jpeg", "compressionargs": {"level": 85}},
            "deflate": {"compression": "zlib", "predictor": True},
            "none": {"compression": None},
        }.items():
            path = Path(folder) / f"{name}.tif"
            tifffile.imwrite(path, image, photometric="rgb", tile=(CHUNK_PX, CHUNK_PX), **arguments)
            for halo_px in (0, HALO_PX):
                compare(f"{name:<12} {halo_px:>4}", path, image.nbytes, options.rounds, options.workers, halo_px)


def compare(label: str, path: Path, image_bytes: int, rounds: int, workers: int, halo_px: int) -> None:
    """Measure both in turn and print one line."""
    ours, theirs = [], []
    decoded = granted = 0
    for _ in range(rounds):
        seconds, decoded, granted = time_sweep(path, workers, halo_px)
        ours.append(image_bytes / seconds / 1e6)
        theirs.append(image_bytes / time_tifffile(path, workers) / 1e6)
    source = TiffSource(path)
    stored = source.count().chunks_stored
    source.close()
    sweep, asarray = statistics.median(ours), statistics.median(theirs)
    print(
        f"{label} {sweep:>8.0f} {asarray:>8.0f} {sweep / asarray:>6.2f} {f'{decoded}/{stored}':>15}"
        f" {granted / 1e6:>9.1f}"
    )


if __name__ == "__main__":
    main()
