"""Whole slides as scanners write them, made with tifffile, for OpenSlide to read."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
import tifffile

from tests.support.tiff_files import tiles_of

JPEG = {"photometric": "ycbcr", "subsampling": (1, 1), "compression": "jpeg", "metadata": None}
APERIO = "Aperio Image Library v11.2.1\r\n{width}x{height} [0,0 {width}x{height}] (240x240) JPEG/RGB Q=30|AppMag = 20|MPP = {mpp}|Left = 25.6"  # noqa: E501
NM = 500
"""Nanometres of a pixel of a Leica slide."""


def tissue(height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8: waves and noise."""
    y, x, c = np.mgrid[0:height, 0:width, 0:3]
    noise = np.random.default_rng(height).integers(-20, 20, (height, width, 3))
    return (120 + 60 * np.sin(y / 19 + c) * np.cos(x / 23) + noise).astype(np.uint8)


def write_svs(path: Path, image: np.ndarray, steps: tuple[int, ...] = (1, 4), mpp: float = 0.5) -> Path:
    """A pyramid as Aperio stores it: full resolution, a thumbnail in strips, reduced levels, one page each."""
    height, width = image.shape[:2]
    description = APERIO.format(height=height, width=width, mpp=mpp)
    with tifffile.TiffWriter(path) as tiff:
        for step in steps:
            level = image[: height // step * step : step, : width // step * step : step]
            tiff.write(np.ascontiguousarray(level), tile=(240, 240), description=description, **JPEG)
            if step == 1:
                tiff.write(np.ascontiguousarray(image[::8, ::8]), rowsperstrip=16, **JPEG)
    return path


def write_ycbcr_svs(path: Path, image: np.ndarray) -> Path:
    """Aperio's older JPEG 2000, whose samples are luma and chroma and do not say so; (H, W, 3) uint8."""
    height, width = image.shape[:2]
    luma = image @ np.array([0.299, 0.587, 0.114])
    stored = np.stack([luma, 128 + (image[..., 2] - luma) * 0.564, 128 + (image[..., 0] - luma) * 0.713], axis=-1)
    codec = {"codecformat": 0, "reversible": True, "mct": False}
    tiles = (
        imagecodecs.jpeg2k_encode(tile, **codec)
        for tile in tiles_of(stored.round().clip(0, 255).astype("u1"), 256, 256)
    )
    description = APERIO.format(height=height, width=width, mpp=0.5)
    form = {"shape": image.shape, "dtype": "u1", "tile": (256, 256), "photometric": "rgb", "metadata": None}
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(tiles, compression=33003, description=description, **form)
    return path


def write_scn(path: Path, image: np.ndarray) -> Path:
    """A Leica slide of twice the size of ``image``, (H, W, 3), which lies in its middle with nothing around it."""
    height, width = image.shape[:2]
    macro = np.full((height // 4, width // 4, 3), 200, np.uint8)
    whole = (2 * width * NM, 2 * height * NM)
    document = (
        '<?xml version="1.0" encoding="utf-8"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01">'
        f'<collection name="c" uuid="u" sizeX="{whole[0]}" sizeY="{whole[1]}" barcode="">'
        + _leica_image("macro", [macro.shape[:2]], 0, whole, (0, 0))
        + _leica_image(
            "main",
            [(height, width), (height // 2, width // 2)],
            1,
            (width * NM, height * NM),
            (width // 2 * NM, height // 2 * NM),
        )
        + "</collection></scn>"
    )
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        tiff.write(macro, tile=(256, 256), description=document, **JPEG)
        for level in (image, image[::2, ::2]):
            tiff.write(np.ascontiguousarray(level), tile=(256, 256), **JPEG)
    return path


def _leica_image(
    name: str, levels: list[tuple[int, ...]], first_page: int, size: tuple[int, int], offset: tuple[int, int]
) -> str:
    dimensions = "".join(
        f'<dimension sizeX="{width}" sizeY="{height}" r="{number}" ifd="{first_page + number}"/>'
        for number, (height, width) in enumerate(levels)
    )
    return (
        f'<image name="{name}" uuid="{name}"><creationDate>2020-01-01T00:00:00Z</creationDate>'
        '<device model="m" version="v"/>'
        f'<pixels sizeX="{levels[0][1]}" sizeY="{levels[0][0]}">{dimensions}</pixels>'
        f'<view sizeX="{size[0]}" sizeY="{size[1]}" offsetX="{offset[0]}" offsetY="{offset[1]}" spacingZ="0"/>'
        "<scanSettings><objectiveSettings><objective>20</objective></objectiveSettings><illuminationSettings>"
        "<numericalAperture>0.4</numericalAperture><illuminationSource>brightfield</illuminationSource>"
        "</illuminationSettings></scanSettings></image>"
    )


def damage_tile(path: Path, page: int, tile: int) -> None:
    """Overwrite a tile's bytes so that no decoder takes them."""
    with tifffile.TiffFile(path) as tiff:
        offset, size = tiff.pages[page].dataoffsets[tile], tiff.pages[page].databytecounts[tile]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\x11" * size)
