"""Memory of decoders of TIFF chunks besides a chunk's stored bytes and its pixels; measured, each in a
fresh process.
"""

from __future__ import annotations

from typing import Any

from exactile.sources.tiff.palette import PALETTE

# Those that write into the array they return: no compression, LZW, JPEG, deflate (two numbers), PackBits, Zstandard.
_IN_PLACE = {1, 5, 7, 8, 32773, 32946, 50000}
_LZMA = {34925}
_WEBP = {50001}
_JPEG2000 = {33003, 33004, 33005, 34712}
_JPEG_XL = {50002, 52546}

_LZMA_BYTES = 8 << 20
_WEBP_PER_SAMPLE = 1.4
_JPEG2000_PER_SAMPLE = 5.2
_JPEG_XL_PER_SAMPLE = 6.0


def scratch_bytes(keyframe: Any, pixels: int, channels: int) -> int:
    """Return the bytes for a chunk of ``pixels`` pixels of ``channels`` samples; for codecs that were not measured its
    size.
    """
    samples = pixels * channels
    pixel_bytes = samples * keyframe.dtype.itemsize
    found = _of_codec(keyframe.compression, samples, pixel_bytes)
    swapped = keyframe.parent.byteorder == ">" and keyframe.dtype.itemsize > 1
    floats_predicted = keyframe.predictor == 3
    unpacked = keyframe.bitspersample != keyframe.dtype.itemsize * 8
    copies = sum((swapped, floats_predicted, unpacked, keyframe.fillorder != 1))
    numbers_bytes = pixels * keyframe.dtype.itemsize if keyframe.photometric == PALETTE else 0
    return int(found + copies * pixel_bytes + numbers_bytes)


def _of_codec(compression: int, samples: int, pixel_bytes: int) -> float:
    if compression in _IN_PLACE:
        return 0
    if compression in _LZMA:
        return _LZMA_BYTES
    if compression in _WEBP:
        return _WEBP_PER_SAMPLE * samples
    if compression in _JPEG2000:
        return _JPEG2000_PER_SAMPLE * samples
    if compression in _JPEG_XL:
        return _JPEG_XL_PER_SAMPLE * samples
    return pixel_bytes
