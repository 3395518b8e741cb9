"""Megabytes of pixels a second: exactile's readers and writers beside tifffile, OpenSlide and zarr, in turn.

``python -m benchmarks.files [--quick] [--size 8192] [--rounds 4]``. Rates are of image bytes, each pixel counted once;
ratios are medians over rounds of exactile's rate by the other's in the same round.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import tifffile

from benchmarks.files.pictures import blobby_labels, tissue_like
from benchmarks.files.readers import OF_TIFF, OF_ZARR, Read, Reader, Sweep
from benchmarks.files.writers import Writer, exactile_writer, tifffile_writer, zarr_writer
from benchmarks.harness.part import run_part
from benchmarks.harness.record import Record, Table
from benchmarks.harness.turns import in_turn, median_ratio

CHUNK_PX = 256
ZARR_CHUNK_PX = 512
HALO_PX = 96
COMPRESSIONS = {
    "JPEG": {"compression": "jpeg", "compressionargs": {"level": 85}},
    "deflate": {"compression": "zlib", "predictor": True},
    "none": {"compression": None},
}
REMARKS = """\
Images are RGB uint8 in tiles of 256 (Zarr: chunks of 512, zstd), read in boxes of 1024 pixels, from the page cache;
with a halo of 96, boxes overlap as those of a tile plan. *Exactile by it* is exactile's rate by the reader's, *by the
other library* a writer's rate by that of tifffile or zarr: above 1, exactile is faster. Reading by one call needs the
whole image in memory. Labels are uint8 in tiles of 512, written in
boxes that are not aligned with them, flushed to the disk; peers write from memory by one call."""


def measure(options: argparse.Namespace) -> Iterator[Record]:
    size = options.size or (4096 if options.quick else 8192)
    rounds = options.rounds or (3 if options.quick else 4)
    tables = []
    with tempfile.TemporaryDirectory(dir=options.directory) as folder:
        place = Path(folder)
        tables += read_tables(place, size, rounds, options.workers, quick=options.quick)
        tables += write_tables(place, size, rounds, quick=options.quick)
    yield Record(part="files", title="Reading and writing", tables=tables, remarks=REMARKS)


def read_tables(place: Path, size: int, rounds: int, workers: int, *, quick: bool) -> list[Table]:
    columns = ("file", "halo", "reader", "MB/s|.0f", "exactile by it|.2f", "chunks decoded / stored")
    table = Table(title=f"Reading {size} x {size} pixels, {workers} threads", columns=columns)
    image = tissue_like(size)
    for name, arguments in COMPRESSIONS.items():
        path = place / f"{name}.tif"
        tifffile.imwrite(path, image, photometric="rgb", tile=(CHUNK_PX, CHUNK_PX), **arguments)
        for halo in (HALO_PX,) if quick else (0, HALO_PX):
            sweep = Sweep(path=path, size_px=size, halo_px=halo, workers=workers)
            add_readers(table, f"TIFF, {name}", sweep, OF_TIFF, image, rounds)
    path = write_zarr(place / "image.zarr", image)
    sweep = Sweep(path=path, size_px=size, halo_px=HALO_PX, workers=workers)
    add_readers(table, "Zarr, zstd", sweep, OF_ZARR, image, rounds)
    return [table]


def write_zarr(path: Path, image: np.ndarray) -> Path:
    import zarr

    chunks = (ZARR_CHUNK_PX, ZARR_CHUNK_PX, image.shape[2])
    array = zarr.create_array(path, shape=image.shape, dtype=image.dtype, chunks=chunks)
    array[:] = image
    return path


def add_readers(
    table: Table, file: str, sweep: Sweep, readers: dict[str, Reader], image: np.ndarray, rounds: int
) -> None:
    last: dict[str, Read] = {}

    def run(name: str) -> float:
        last[name] = readers[name](sweep)
        if np.abs(last[name].corner.astype(int) - image[-1, -1]).max() > (24 if "JPEG" in file else 0):
            raise SystemExit(f"{name} read wrong pixels of {file}")
        return last[name].seconds

    seconds = in_turn({name: partial(run, name) for name in readers}, rounds, warm_up=1, say=f"reading {file}")
    for name, taken in seconds.items():
        found = last[name]
        chunks = f"{found.decoded} / {found.stored}" if found.stored else None
        table.add(
            file,
            sweep.halo_px,
            name,
            image.nbytes / 1e6 / statistics.median(taken),
            None if name == "exactile" else median_ratio(taken, seconds["exactile"]),
            chunks,
        )


def write_tables(place: Path, size: int, rounds: int, *, quick: bool) -> list[Table]:
    columns = ("file", "writer", "MB/s|.0f", "by the other library|.2f", "file MB|.2f")
    table = Table(title=f"Writing {size} x {size} labels, 2 threads", columns=columns)
    labels = blobby_labels(size)
    for compression in ("zlib",) if quick else ("zlib", "zstd", "lzw", "none"):
        for pyramid in (False, True):
            add_writers(table, place, labels, compression, rounds, pyramid=pyramid)
    for pyramid in (False, True):
        add_writers(table, place, labels, "zarr", rounds, pyramid=pyramid)
    return [table]


def add_writers(table: Table, place: Path, labels: np.ndarray, compression: str, rounds: int, *, pyramid: bool) -> None:
    suffix = ".zarr" if compression == "zarr" else ".tif"
    codec = "zstd" if compression == "zarr" else compression
    writers: dict[str, Writer] = {
        "exactile": exactile_writer(codec, pyramid=pyramid, resumable=False),
        "exactile, resumable": exactile_writer(codec, pyramid=pyramid, resumable=True),
    }
    if compression == "zarr":
        writers["zarr"] = zarr_writer(pyramid=pyramid)
    else:
        writers["tifffile"] = tifffile_writer(compression, pyramid=pyramid)
    paths = {name: place / f"labels{number}{suffix}" for number, name in enumerate(writers)}

    def run(name: str) -> float:
        remove(paths[name])
        begin = time.perf_counter()
        writers[name](paths[name], labels)
        return time.perf_counter() - begin

    kind = f"{'Zarr' if compression == 'zarr' else 'TIFF'}, {codec}{', pyramid' if pyramid else ''}"
    seconds = in_turn({name: partial(run, name) for name in writers}, rounds, warm_up=1, say=f"writing {kind}")
    if suffix == ".tif" and not np.array_equal(tifffile.imread(paths["exactile"]), labels):
        raise SystemExit(f"exactile wrote wrong pixels: {kind}")
    other = seconds[next(name for name in writers if not name.startswith("exactile"))]
    for name, taken in seconds.items():
        speed = labels.nbytes / 1e6 / statistics.median(taken)
        by = median_ratio(other, taken) if taken is not other else None
        table.add(kind, name, speed, by, file_bytes(paths[name]) / 1e6)
        remove(paths[name])


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def file_bytes(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, help="edge of image and label map in pixels")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--directory", type=Path, help="where the test files go (default: a temporary folder)")
    run_part(measure, parser)


if __name__ == "__main__":
    main()
