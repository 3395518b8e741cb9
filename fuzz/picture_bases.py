"""Small intact pictures of every format that is read, for damage to start from."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache
from typing import Any

import imagecodecs
import numpy as np
from PIL import Image

HEIGHT, WIDTH = 45, 62


def _pixels(channels: int = 3, dtype: str = "uint8") -> np.ndarray:
    """Return (H, W) or (H, W, C): smooth with some noise."""
    shape = (HEIGHT, WIDTH, channels) if channels > 1 else (HEIGHT, WIDTH)
    ramp = np.add.outer(np.arange(HEIGHT) * 2, np.arange(WIDTH))
    noisy = ((ramp[..., None] if channels > 1 else ramp) + np.random.default_rng(3).integers(0, 9, shape)) % 250
    return (noisy * 257).astype(dtype) if dtype == "uint16" else noisy.astype(dtype)


def _written(image: Image.Image | np.ndarray, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(stream, kind, **options)
    return stream.getvalue()


def _palette() -> Image.Image:
    return Image.fromarray(_pixels()).quantize(16)


BASES: dict[str, Callable[[], bytes]] = {
    "png grey": lambda: _written(_pixels(1), "PNG"),
    "png rgb": lambda: _written(_pixels(), "PNG"),
    "png rgba": lambda: _written(_pixels(4), "PNG"),
    "png palette": lambda: _written(_palette(), "PNG", transparency=3),
    "png 1 bit": lambda: _written(Image.fromarray(_pixels(1) > 99), "PNG"),
    "png 16 bits": lambda: _written(_pixels(1, "uint16"), "PNG"),
    "jpeg grey": lambda: _written(_pixels(1), "JPEG"),
    "jpeg rgb": lambda: _written(_pixels(), "JPEG"),
    "jpeg progressive": lambda: _written(_pixels(), "JPEG", progressive=True),
    "jpeg 12 bits": lambda: bytes(imagecodecs.jpeg8_encode(_pixels(1, "uint16") >> 4, bitspersample=12)),
    "bmp grey": lambda: _written(_pixels(1), "BMP"),
    "bmp rgb": lambda: _written(_pixels(), "BMP"),
    "bmp palette": lambda: _written(_palette(), "BMP"),
    "bmp 1 bit": lambda: _written(Image.fromarray(_pixels(1) > 99), "BMP"),
    "webp lossy": lambda: _written(_pixels(), "WEBP"),
    "webp lossless": lambda: _written(_pixels(), "WEBP", lossless=True),
    "webp alpha": lambda: _written(_pixels(4), "WEBP"),
    "jp2 grey": lambda: _written(_pixels(1), "JPEG2000"),
    "jp2 rgb": lambda: _written(_pixels(), "JPEG2000"),
    "jp2 rgba": lambda: _written(_pixels(4), "JPEG2000"),
    "jp2 lossy": lambda: _written(_pixels(), "JPEG2000", irreversible=True),
    "jp2 16 bits": lambda: bytes(imagecodecs.jpeg2k_encode(_pixels(1, "uint16"), level=0)),
    "j2k rgb": lambda: _written(_pixels(), "JPEG2000", no_jp2=True),
    "jxl rgb": lambda: bytes(imagecodecs.jpegxl_encode(_pixels(), lossless=True)),
    "jxl rgba": lambda: bytes(imagecodecs.jpegxl_encode(_pixels(4), lossless=True)),
    "jxl lossy": lambda: bytes(imagecodecs.jpegxl_encode(_pixels(), distance=1)),
    "jxl 16 bits": lambda: bytes(imagecodecs.jpegxl_encode(_pixels(1, "uint16"), lossless=True)),
}


@cache
def picture_base(name: str) -> bytes:
    return BASES[name]()
