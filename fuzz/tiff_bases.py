"""Small intact TIFF files of every layout that is read, for damage to start from."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import tifffile

HEIGHT, WIDTH = 70, 90


def _image(dtype: str = "uint8", channels: int = 0, seed: int = 3) -> np.ndarray:
    """Return (H, W) or (H, W, C): smooth with some noise, so that every codec has something to do."""
    rng = np.random.default_rng(seed)
    shape = (HEIGHT, WIDTH, channels) if channels else (HEIGHT, WIDTH)
    ramp = np.add.outer(np.arange(HEIGHT) * 2, np.arange(WIDTH))
    ramp = ramp[..., None] if channels else ramp
    return ((ramp + rng.integers(0, 9, shape)) % 250).astype(dtype)


def _written(image: np.ndarray, **options: Any) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, image, **options)
    return stream.getvalue()


def _pyramid(**options: Any) -> bytes:
    stream = io.BytesIO()
    image = _image(channels=3)
    with tifffile.TiffWriter(stream, bigtiff=options.pop("bigtiff", False), ome=options.pop("ome", False)) as writer:
        writer.write(image, subifds=2, tile=(32, 32), photometric="rgb", **options)
        for step in (2, 4):
            writer.write(image[::step, ::step], subfiletype=1, tile=(32, 32), photometric="rgb", **options)
    return stream.getvalue()


def _colormap() -> np.ndarray:
    """Return (3, 256) uint16."""
    return np.random.default_rng(1).integers(0, 1 << 16, (3, 256)).astype(np.uint16)


def _planes(image: np.ndarray) -> np.ndarray:
    return np.moveaxis(image, 2, 0)


BASES: dict[str, Callable[[], bytes]] = {
    **{
        f"{layout} {codec or 'none'}": lambda codec=codec, options=options: _written(
            _image(channels=3), photometric="rgb", compression=codec, **options
        )
        for codec in (None, "zlib", "lzw", "zstd", "jpeg", "packbits")
        for layout, options in (("tiles", {"tile": (32, 32)}), ("strips", {"rowsperstrip": 16}))
    },
    "grey jpeg tiles": lambda: _written(_image(), tile=(32, 32), compression="jpeg"),
    "one strip": lambda: _written(_image(), compression="zlib", rowsperstrip=HEIGHT),
    "big tiles": lambda: _written(_image(), tile=(16, 48), compression="zlib", bigtiff=True),
    "big strips": lambda: _written(_image(), bigtiff=True),
    "big-endian tiles": lambda: _written(_image("uint16"), tile=(32, 32), compression="lzw", byteorder=">"),
    "big-endian raw": lambda: _written(_image("uint16"), byteorder=">"),
    "float32 predictor": lambda: _written(_image("float32"), tile=(32, 32), compression="zlib", predictor=3),
    "uint16 predictor": lambda: _written(_image("uint16"), tile=(32, 32), compression="zstd", predictor=2),
    "planar": lambda: _written(
        _planes(_image(channels=3)), tile=(32, 32), compression="zlib", photometric="rgb", planarconfig="separate"
    ),
    "planar raw": lambda: _written(_planes(_image(channels=3)), photometric="rgb", planarconfig="separate"),
    "pyramid": lambda: _pyramid(compression="zlib"),
    "pyramid jpeg": lambda: _pyramid(compression="jpeg", bigtiff=True),
    "ome": lambda: _written(_image(channels=3), ome=True, tile=(32, 32), compression="zlib", photometric="rgb"),
    "ome channels": lambda: _written(
        _planes(_image(channels=3)), ome=True, metadata={"axes": "CYX"}, photometric="minisblack", compression="zlib"
    ),
    "ome pyramid": lambda: _pyramid(compression="zlib", ome=True),
    "imagej channels": lambda: _written(_planes(_image(channels=3)), imagej=True, metadata={"axes": "CYX"}),
    **{
        f"{dtype} {layout}": lambda dtype=dtype, options=options: _written(_image(dtype), **options)
        for dtype in ("int8", "int16", "uint32", "int32", "float16", "float64")
        for layout, options in (("tiles", {"tile": (32, 32), "compression": "zlib"}), ("raw", {}))
    },
    "uint32 predictor": lambda: _written(_image("uint32"), tile=(32, 32), compression="zlib", predictor=2),
    "float64 predictor": lambda: _written(_image("float64"), tile=(32, 32), compression="zlib", predictor=3),
    "bits": lambda: _written(_image() > 120, rowsperstrip=16),
    "bits zlib": lambda: _written(_image() > 120, rowsperstrip=16, compression="zlib"),
    "palette": lambda: _written(_image(), photometric="palette", colormap=_colormap(), compression="zlib"),
    "alpha": lambda: _written(
        _image(channels=4), photometric="rgb", extrasamples=["unassalpha"], tile=(32, 32), compression="zlib"
    ),
    "no description": lambda: _written(_image(), tile=(32, 32), compression="zlib", metadata=None),
}


@cache
def tiff_base(name: str) -> bytes:
    return BASES[name]()
