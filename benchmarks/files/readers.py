"""An image read in boxes, as a tile plan reads it: each of these takes seconds for all boxes, and checks a few pixels.

Boxes of 1024 pixels follow each other row by row; with a halo they overlap, and every pixel is still counted once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile

from exactile import open_source
from exactile.geometry import Box, Span
from exactile.sources.protocol import ReadPlan

BOX_PX = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """What is read: a file, the boxes' halo, how many threads may decode."""

    path: Path
    size_px: int
    halo_px: int
    workers: int

    def spans(self) -> list[Span]:
        """Return boxes along one axis, kept within the image."""
        starts = range(0, self.size_px, BOX_PX)
        return [Span(max(0, s - self.halo_px), min(self.size_px, s + BOX_PX + self.halo_px)) for s in starts]

    def boxes(self) -> list[Box]:
        return [Box(rows, columns) for rows in self.spans() for columns in self.spans()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    seconds: float
    corner: np.ndarray
    decoded: int | None = None
    stored: int | None = None


Reader = Callable[[Sweep], Read]


def exactile_sweep(sweep: Sweep) -> Read:
    """Read with the cache that the plan asks for."""
    begin = time.perf_counter()
    source = open_source(sweep.path, workers=sweep.workers)
    plan = ReadPlan(rows=sweep.spans(), columns=sweep.spans())
    longest = max(span.length for span in sweep.spans())
    buffer = np.empty(longest * longest * source.channels, source.dtype)
    source.prepare(plan, cache_bytes=source.cache_bytes(plan))
    for box in sweep.boxes():
        shape = (*box.shape, source.channels)
        pixels = buffer[: np.prod(shape)].reshape(shape)
        source.read(box, pixels)
    seconds, count = time.perf_counter() - begin, source.count()
    source.close()
    return Read(
        seconds=seconds, corner=pixels[-1, -1].copy(), decoded=count.chunks_decoded, stored=count.chunks_stored
    )  # fmt: skip


def tifffile_page(sweep: Sweep) -> Read:
    """Read the whole page by one call, into memory: possible if the image fits."""
    begin = time.perf_counter()
    with tifffile.TiffFile(sweep.path) as tiff:
        pixels = tiff.pages[0].asarray(maxworkers=sweep.workers)
    return Read(seconds=time.perf_counter() - begin, corner=pixels[-1, -1].copy())


def tifffile_zarr(sweep: Sweep) -> Read:
    """Read boxes of tifffile's store, as its documentation reads parts of an image: through zarr."""
    import zarr

    begin = time.perf_counter()
    store = tifffile.imread(sweep.path, aszarr=True)
    array = zarr.open(store, mode="r")
    for box in sweep.boxes():
        pixels = array[box.slices()]
    store.close()
    return Read(seconds=time.perf_counter() - begin, corner=pixels[-1, -1].copy())


def openslide_regions(sweep: Sweep) -> Read:
    """Call ``read_region`` in as many threads, converted to RGB as every script does."""
    import openslide

    def read(box: Box) -> np.ndarray:
        region = slide.read_region((box.x.start, box.y.start), 0, (box.x.length, box.y.length))
        return np.asarray(region.convert("RGB"))

    begin = time.perf_counter()
    with openslide.OpenSlide(sweep.path) as slide, ThreadPoolExecutor(sweep.workers) as pool:
        for pixels in pool.map(read, sweep.boxes()):
            corner = pixels[-1, -1].copy()
    return Read(seconds=time.perf_counter() - begin, corner=corner)


def zarr_whole(sweep: Sweep) -> Read:
    """Read a zarr array by one call, into memory."""
    import zarr

    begin = time.perf_counter()
    pixels = zarr.open_array(sweep.path, mode="r")[:]
    return Read(seconds=time.perf_counter() - begin, corner=pixels[-1, -1].copy())


def zarr_boxes(sweep: Sweep) -> Read:
    """Read a zarr array box by box."""
    import zarr

    begin = time.perf_counter()
    array = zarr.open_array(sweep.path, mode="r")
    for box in sweep.boxes():
        pixels = array[box.slices()]
    return Read(seconds=time.perf_counter() - begin, corner=pixels[-1, -1].copy())


OF_TIFF: dict[str, Reader] = {
    "exactile": exactile_sweep,
    "tifffile, the page by one call": tifffile_page,
    "tifffile through zarr": tifffile_zarr,
    "OpenSlide": openslide_regions,
}
OF_ZARR: dict[str, Reader] = {
    "exactile": exactile_sweep,
    "zarr, all by one call": zarr_whole,
    "zarr, boxes": zarr_boxes,
}
