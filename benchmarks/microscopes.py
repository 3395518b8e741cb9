"""Megabytes of pixels a second: files of microscopes and scanners, beside the libraries that read them, in turn.

``python -m benchmarks.microscopes [--quick] [--size 8192] [--rounds 5]``. Images are read from the page cache in boxes
of 1024 pixels with a halo of 96, as a tile plan reads them; each pixel is counted once. *Exactile by it* is exactile's
rate by the library's: above 1, exactile is faster.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.files.pictures import tissue_like
from benchmarks.files.readers import Read, Sweep, exactile_sweep
from benchmarks.harness.part import run_part
from benchmarks.harness.record import Record, Table
from benchmarks.harness.turns import in_turn, median_ratio
from exactile.geometry import Box

HALO_PX, TILE_PX = 96, 512

Boxes = Callable[[Box], np.ndarray]


def read_boxes(sweep: Sweep, read: Boxes, *, threads: int = 1) -> Read:
    """Read all boxes with a library: opening the file is not included."""
    begin = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        last = [*pool.map(read, sweep.boxes())][-1]
    return Read(seconds=time.perf_counter() - begin, corner=np.atleast_1d(last[-1, -1]))


def czi_boxes(sweep: Sweep, threads: int) -> Read:
    from pylibCZIrw import czi

    with czi.open_czi(str(sweep.path)) as image:

        def read(box: Box) -> np.ndarray:
            pixels = image.read(roi=(box.x.start, box.y.start, box.x.length, box.y.length), plane={"C": 0})
            return pixels[..., ::-1] if pixels.shape[-1] == 3 else pixels

        return read_boxes(sweep, read, threads=threads)


def dicom_boxes(sweep: Sweep, threads: int) -> Read:
    from wsidicom import WsiDicom

    with WsiDicom.open(sweep.path) as slide:

        def read(box: Box) -> np.ndarray:
            corner, size = (box.x.start, box.y.start), (box.x.length, box.y.length)
            return np.asarray(slide.read_region(corner, 0, size, threads=threads))

        return read_boxes(sweep, read)


def lif_plane(sweep: Sweep) -> Read:
    from liffile import LifFile

    begin = time.perf_counter()
    with LifFile(sweep.path) as file:
        plane = file.images[0].asarray()
    return Read(seconds=time.perf_counter() - begin, corner=np.atleast_1d(plane[-1, -1]))


def write_czi_mosaic(path: Path, pixels: np.ndarray) -> Path:
    from tests.support.czi_files import Block, write_czi

    starts = range(0, len(pixels), TILE_PX)
    blocks = [
        Block(pixels=pixels[y : y + TILE_PX, x : x + TILE_PX], x=x, y=y, at={"C": 0}, compression="zstd1")
        for y in starts
        for x in starts
    ]
    return write_czi(path, blocks)


def write_slide(path: Path, pixels: np.ndarray, *, lossy: bool) -> Path:
    from pydicom import uid

    from tests.support.dicom_slides import Level, Slide, write

    path.mkdir()
    syntax, colours = (uid.JPEGBaseline8Bit, "YBR_FULL_422") if lossy else (uid.JPEG2000Lossless, "YBR_RCT")
    level = Level(pixels=pixels[None, None], tile=(TILE_PX, TILE_PX), syntax=syntax, photometric=colours)
    write(path / "level.dcm", level, Slide())
    return path


def write_plane(path: Path, pixels: np.ndarray) -> Path:
    from tests.support.lif_files import LifPart, write_lif

    return write_lif(path, LifPart(name="plane", samples=pixels, axes="YX"))


def files(place: Path, size: int) -> Iterator[tuple[str, Path, np.ndarray, dict[str, Callable[[Sweep], Read]]]]:
    """Yield name, path, pixels, and what reads it besides exactile."""
    colours = tissue_like(size)
    deep = colours[..., 0].astype(np.uint16) * 257
    czi = {f"pylibCZIrw, {n} thread{'s' * (n > 1)}": partial(czi_boxes, threads=n) for n in (1, 2)}
    slide = {f"wsidicom, {n} thread{'s' * (n > 1)}": partial(dicom_boxes, threads=n) for n in (1, 2)}
    yield "CZI, RGB, zstd", write_czi_mosaic(place / "colours.czi", colours), colours, czi
    yield "CZI, grey 16 bits, zstd", write_czi_mosaic(place / "deep.czi", deep), deep, czi
    yield "DICOM, RGB, JPEG", write_slide(place / "jpeg", colours, lossy=True), colours, slide
    yield "DICOM, RGB, JPEG 2000", write_slide(place / "lossless", colours, lossy=False), colours, slide
    yield "LIF, grey 16 bits", write_plane(place / "deep.lif", deep), deep, {"liffile, whole plane": lif_plane}


def measure(options: argparse.Namespace) -> Iterator[Record]:
    size = options.size or (2048 if options.quick else 4096)
    rounds = options.rounds or (2 if options.quick else 5)
    table = Table(
        title=f"Reading {size} x {size} pixels, {options.workers} threads",
        columns=("file", "reader", "MB/s|.0f", "exactile by it|.2f", "chunks decoded / stored"),
    )
    with tempfile.TemporaryDirectory(dir=options.directory) as folder:
        for name, path, pixels, others in files(Path(folder), size):
            sweep = Sweep(path=path, size_px=size, halo_px=HALO_PX, workers=options.workers)
            add(table, name, sweep, pixels, {"exactile": exactile_sweep, **others}, rounds)
    remarks = (__doc__ or "").split("\n\n", 1)[1].split(". ", 1)[1].strip()
    yield Record(part="microscopes", title="Files of microscopes and scanners", tables=[table], remarks=remarks)


def add(
    table: Table,
    name: str,
    sweep: Sweep,
    pixels: np.ndarray,
    readers: dict[str, Callable[[Sweep], Read]],
    rounds: int,
) -> None:
    last: dict[str, Read] = {}

    def run(reader: str) -> float:
        last[reader] = readers[reader](sweep)
        expected = np.atleast_1d(pixels[-1, -1]).astype(int)
        if np.abs(last[reader].corner.astype(int).ravel() - expected).max() > (24 if "JPEG" in name else 0):
            raise SystemExit(f"{reader} read wrong pixels of {name}")
        return last[reader].seconds

    seconds = in_turn({reader: partial(run, reader) for reader in readers}, rounds, warm_up=1, say=name)
    for reader, taken in seconds.items():
        found = last[reader]
        ratio = None if reader == "exactile" else median_ratio(taken, seconds["exactile"])
        chunks = f"{found.decoded} / {found.stored}" if found.stored else None
        table.add(name, reader, pixels.nbytes / 1e6 / statistics.median(taken), ratio, chunks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--directory", type=Path, help="where files are written")
    run_part(measure, parser)


if __name__ == "__main__":
    main()
