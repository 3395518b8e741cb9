"""Small pictures of every format, written by Pillow where it can and by libjxl where it cannot."""

from __future__ import annotations

import io
from typing import Any

import imagecodecs
import numpy as np
from PIL import Image

HEIGHT, WIDTH = 61, 83


def samples(channels: int = 3, dtype: str = "uint8", seed: int = 5) -> np.ndarray:
    """(H, W) or (H, W, C), smooth with some noise."""
    shape = (HEIGHT, WIDTH) if channels == 1 else (HEIGHT, WIDTH, channels)
    ramp = np.add.outer(np.arange(HEIGHT) * 2, np.arange(WIDTH))
    ramp = ramp if channels == 1 else ramp[..., None] * np.arange(1, channels + 1)
    noisy = (ramp + np.random.default_rng(seed).integers(0, 30, shape)) % 256
    return (noisy * 250).astype(dtype) if dtype == "uint16" else noisy.astype(dtype)


def encoded(image: Image.Image | np.ndarray, kind: str, **options: Any) -> bytes:
    """As Pillow writes it."""
    stream = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(stream, kind, **options)
    return stream.getvalue()


def jpegxl(pixels: np.ndarray, **options: Any) -> bytes:
    return bytes(imagecodecs.jpegxl_encode(pixels, **options))


def interlaced(pixels: np.ndarray) -> bytes:
    """A PNG picture in Adam7's seven passes, by its specification; (H, W) or (H, W, C) uint8 or uint16."""
    import struct
    import zlib

    rows = b""
    for top, left, down, right in ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2),
                                   (1, 0, 2, 1)):  # fmt: skip
        part = pixels[top::down, left::right]
        if part.size:
            rows += b"".join(b"\0" + row.astype(row.dtype.newbyteorder(">")).tobytes() for row in part)
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[1 if pixels.ndim == 2 else pixels.shape[2]]
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8 * pixels.itemsize, colour, 0, 0, 1)
    found = b"\x89PNG\r\n\x1a\n"
    for name, content in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        found += struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
    return found
