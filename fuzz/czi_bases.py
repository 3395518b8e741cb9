"""Small intact CZI files of every form that is read, for damage to start from."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from tests.support.czi_files import SCALING, Block, czi_bytes

HEIGHT, WIDTH = 45, 62
LEVELS = {"pyramid": 1}
"""The level to read of a base, where it is not the full resolution."""


def _pixels(dtype: str = "uint8", channels: int = 1, seed: int = 3) -> np.ndarray:
    """Return (H, W) or (H, W, 3): smooth with some noise."""
    ramp = np.add.outer(np.arange(HEIGHT) * 2, np.arange(WIDTH))
    ramp = ramp[..., None] if channels > 1 else ramp
    shape = (HEIGHT, WIDTH, channels) if channels > 1 else (HEIGHT, WIDTH)
    noisy = (ramp + np.random.default_rng(seed).integers(0, 9, shape)) % 250
    return (noisy * 257).astype(dtype) if dtype == "uint16" else noisy.astype(dtype)


def _tiled(image: np.ndarray, compression: str, step: int = 30, **at: int) -> list[Block]:
    """Return sub-blocks that overlap by a few pixels, in an order of their own."""
    places = [(y, x) for y in range(0, HEIGHT - 9, step) for x in range(0, WIDTH - 9, step)]
    return [
        Block(
            pixels=image[y : y + 33, x : x + 33],
            y=y - 20,
            x=x - 10,
            compression=compression,
            at={"C": 0, **at, "M": 7 * n % 11},
        )
        for n, (y, x) in enumerate(places)
    ]


def _pyramid() -> bytes:
    image = _pixels()[:44]
    half = image[::2, ::2]
    tiles = [
        Block(pixels=half[y : y + 11, x : x + 16], y=2 * y, x=2 * x, scale=2, compression="zstd1")
        for y in range(0, 22, 11)
        for x in range(0, 31, 16)
    ]
    return czi_bytes([Block(pixels=image, compression="zstd1"), *tiles], metadata=SCALING.format(x=5e-7, y=5e-7))


def _one(image: np.ndarray, compression: str) -> bytes:
    return czi_bytes([Block(pixels=image, compression=compression)], metadata=SCALING.format(x=5e-7, y=5e-7))


BASES: dict[str, Callable[[], bytes]] = {
    "grey": lambda: _one(_pixels(), "none"),
    "grey zstd": lambda: _one(_pixels(), "zstd0"),
    "deep packed": lambda: _one(_pixels("uint16"), "packed"),
    "float zstd": lambda: _one(_pixels("float32"), "zstd1"),
    "rgb": lambda: _one(_pixels(channels=3), "none"),
    "rgb zstd": lambda: _one(_pixels(channels=3), "zstd1"),
    "deep rgb": lambda: _one(_pixels("uint16", 3), "zstd0"),
    "grey jpeg xr": lambda: _one(_pixels(), "jpegxr"),
    "deep jpeg xr": lambda: _one(_pixels("uint16"), "jpegxr"),
    "rgb jpeg xr": lambda: _one(_pixels(channels=3), "jpegxr"),
    "mosaic": lambda: czi_bytes(_tiled(_pixels(), "none")),
    "mosaic zstd": lambda: czi_bytes(_tiled(_pixels("uint16"), "zstd1")),
    "mosaic jpeg xr": lambda: czi_bytes(_tiled(_pixels(), "jpegxr")),
    "channels": lambda: czi_bytes(
        [block for c in range(3) for block in _tiled(_pixels(seed=c), "zstd0", C=c, Z=4, T=0, S=2)]
    ),
    "scenes": lambda: czi_bytes([block for s in range(2) for block in _tiled(_pixels(seed=s), "none", S=s)]),
    "pyramid": _pyramid,
}


@cache
def czi_base(name: str) -> bytes:
    return BASES[name]()
