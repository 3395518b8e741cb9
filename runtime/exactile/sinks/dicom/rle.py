"""Frames of labels in DICOM's RLE: a segment for each byte of a sample, the highest first, packed row by row.

Source: DICOM PS3.5, Annex G.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

_HEADER = struct.Struct("<16I")


def rle_frame(labels: NDArray[Any]) -> bytes:
    """Return ``labels`` (H, W) uint8 or uint16 as one frame, of an even number of bytes."""
    import imagecodecs

    rows = np.ascontiguousarray(labels.astype(labels.dtype.newbyteorder(">"), copy=False))
    planes = rows.view(np.uint8).reshape(*rows.shape, rows.dtype.itemsize)
    segments = [
        _even(bytes(imagecodecs.packbits_encode(np.ascontiguousarray(planes[..., n])))) for n in range(planes.shape[2])
    ]
    starts = [_HEADER.size + sum(map(len, segments[:number])) for number in range(len(segments))]
    header = _HEADER.pack(len(segments), *starts, *[0] * (15 - len(segments)))
    return b"".join([header, *segments])


def _even(data: bytes) -> bytes:
    return data + b"\0" * (len(data) % 2)
