"""A label map written box by box, as a run does, or by one call from memory; each ends with the file on the disk."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tifffile

from exactile.geometry import Box, Span
from exactile.sinks.open import open_sink
from exactile.sinks.protocol import ResultSpec
from exactile.sinks.tiles.pyramid import level_grids
from exactile.sinks.zarr.store import SYNC_THREADS

WORKERS = 2
TILE_PX = 512
ZLIB_LEVEL = 6  # TiffSink's for labels
BOX_ROWS, BOX_COLUMNS = 832, 1000  # not aligned with the file's tiles

Writer = Callable[[Path, np.ndarray], None]


def exactile_writer(compression: str, *, pyramid: bool, resumable: bool) -> Writer:
    def write(path: Path, labels: np.ndarray) -> None:
        sink = open_sink(path, compression=compression, pyramid=pyramid, resumable=resumable, overwrite=True)
        height, width = labels.shape
        sink.begin(ResultSpec(height=height, width=width, channels=0, dtype=labels.dtype.name))
        for rows in _spans(height, BOX_ROWS):
            for columns in _spans(width, BOX_COLUMNS):
                box = Box(rows, columns)
                sink.write(box, labels[box.slices()])
        sink.finish()

    return write


def tifffile_writer(compression: str, *, pyramid: bool) -> Writer:
    """Return a writer of all levels from memory, one call each."""
    level = {"zlib": {"level": ZLIB_LEVEL}, "zstd": {"level": 1}}.get(compression)

    def write(path: Path, labels: np.ndarray) -> None:
        levels = len(level_grids(*labels.shape, TILE_PX, pyramid=True)) if pyramid else 1
        with path.open("w+b") as file:
            with tifffile.TiffWriter(file, bigtiff=True) as writer:
                for number in range(levels):
                    writer.write(
                        np.ascontiguousarray(labels[:: 2**number, :: 2**number]),
                        tile=(TILE_PX, TILE_PX),
                        photometric="minisblack",
                        compression=compression,
                        compressionargs=level,
                        subfiletype=1 if number else 0,
                        maxworkers=WORKERS,
                    )
            os.fsync(file.fileno())

    return write


def zarr_writer(*, pyramid: bool) -> Writer:
    """Return a writer of all levels from memory by zarr, with its default compression (zstd)."""

    def write(path: Path, labels: np.ndarray) -> None:
        import zarr

        group = zarr.open_group(path, mode="w")
        levels = len(level_grids(*labels.shape, TILE_PX, pyramid=True)) if pyramid else 1
        for number in range(levels):
            part = np.ascontiguousarray(labels[:: 2**number, :: 2**number])
            group.create_array(str(number), shape=part.shape, dtype=part.dtype, chunks=(TILE_PX, TILE_PX))[:] = part
        with ThreadPoolExecutor(SYNC_THREADS) as pool:  # as exactile does: one by one takes twice as long
            list(pool.map(_sync, [file for file in path.rglob("*") if file.is_file()]))

    return write


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _spans(size: int, step: int) -> list[Span]:
    return [Span(start, min(size, start + step)) for start in range(0, size, step)]
