"""Images for the checks."""

from __future__ import annotations

import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from skimage import data

from benchmarks.gpu_kit.network_names import LARGEST_INTEGER, is_integer

JPEG_TILE_PX = 256
JPEG_QUALITY = 85
DISTINCT_PX = 4096
"""Larger images repeat a block of this side: encoded once, decoded each time."""
NOISE = 6

Picture = NDArray[np.uint8]


def picture(name: str, height: int, width: int) -> Picture:
    """Return (height, width, 3) uint8 for a network: a stained section with noise, or small integers, different
    everywhere.
    """
    random = np.random.default_rng(0)
    if is_integer(name):
        return random.integers(0, LARGEST_INTEGER + 1, (height, width, 3), dtype=np.uint8)
    pixels = _tissue(height, width).astype(np.int16)
    pixels += random.integers(-NOISE, NOISE + 1, pixels.shape, dtype=np.int16)
    return pixels.clip(0, 255).astype(np.uint8)


def jpeg_tiff(side: int, folder: Path) -> Path:
    """Return a tiled JPEG BigTIFF as slides are, made if it is not in ``folder``."""
    path = folder / f"slide-{side}.tif"
    if path.exists():
        return path
    distinct = min(side, DISTINCT_PX)
    block = -(-distinct // JPEG_TILE_PX) * JPEG_TILE_PX
    pixels, across = picture("tissue", block, block), block // JPEG_TILE_PX
    corners = list(itertools.product(range(0, block, JPEG_TILE_PX), repeat=2))
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        encoded = list(pool.map(lambda corner: _encoded(pixels, *corner), corners))
    tiles = range(-(-side // JPEG_TILE_PX))
    part = path.with_name(f"part-{path.name}")
    tifffile.imwrite(
        part,
        (encoded[y % across * across + x % across] for y, x in itertools.product(tiles, tiles)),
        shape=(side, side, 3),
        dtype=np.uint8,
        tile=(JPEG_TILE_PX, JPEG_TILE_PX),
        photometric="rgb",
        compression="jpeg",
        bigtiff=True,
    )
    part.replace(path)
    return path


def make_slides(sides: list[int], folder: Path) -> dict[str, object]:
    """Return a check: writes the images of the step."""
    rows = [{"side": side, "MiB": jpeg_tiff(side, folder).stat().st_size / (1 << 20)} for side in sides]
    return {"passed": True, "rows": rows}


def _tissue(height: int, width: int) -> Picture:
    """Return a stained section, mirrored again and again."""
    section = data.immunohistochemistry()
    return np.pad(
        section, [(0, max(0, height - len(section))), (0, max(0, width - section.shape[1])), (0, 0)], "reflect"
    )[:height, :width]


def _encoded(pixels: Picture, y: int, x: int) -> bytes:
    tile = np.ascontiguousarray(pixels[y : y + JPEG_TILE_PX, x : x + JPEG_TILE_PX])
    found: bytes = imagecodecs.jpeg8_encode(tile, level=JPEG_QUALITY, colorspace="RGB", outcolorspace="YCBCR")
    return found
