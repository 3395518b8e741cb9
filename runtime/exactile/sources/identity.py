"""Identify an image, so that a change between two runs is noticed without reading all of it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.errors import SourceError
from exactile.sources.image_choice import ImageChoice
from exactile.sources.positional_file import DamagedDataError, PositionalFile
from exactile.sources.protocol import Identity, Source

ENDS_BYTES = 64 << 10
"""Bytes at the beginning and at the end of a file that its identity covers."""

SAMPLED_BYTES = 1 << 20
"""Bytes of an array that its identity covers, spread evenly."""


def image_identity(kind: str, source: Source, choice: ImageChoice, channels: Sequence[int]) -> Identity:
    """Return the choice that was made of an image, its shape (H x W x C) and sample type."""
    identity: Identity = {
        "kind": kind,
        "level": choice.level,
        "series": choice.series,
        "z": choice.z or 0,
        "t": choice.t or 0,
        "channels": ",".join(map(str, channels)),
        "shape": f"{source.height}x{source.width}x{source.channels}",
        "dtype": source.dtype.name,
    }
    if choice.page is not None:
        identity["page"] = choice.page
    if choice.axes is not None:
        identity["axes"] = choice.axes
    return identity


def file_identity(file: PositionalFile) -> Identity:
    """Return size, time of the last change and the SHA-256 of both ends. Raises SourceError if the file
    cannot be read.
    """
    file.check_open()
    size_bytes = os.fstat(file.stream.fileno()).st_size
    length = min(ENDS_BYTES, size_bytes)
    try:
        ends = file.read(0, length) + file.read(size_bytes - length, length)
    except DamagedDataError as error:
        raise SourceError(f"{file.name}: {error}") from error
    return {
        "size_bytes": size_bytes,
        "mtime_ns": os.fstat(file.stream.fileno()).st_mtime_ns,
        "ends_sha256": hashlib.sha256(ends).hexdigest(),
    }


def array_identity(array: NDArray[Any]) -> Identity:
    """Return the SHA-256 of shape, sample type and at most SAMPLED_BYTES of samples."""
    count = min(array.size, SAMPLED_BYTES // array.itemsize)
    places = np.unravel_index(np.linspace(0, array.size - 1, count).astype(np.int64), array.shape)
    digest = hashlib.sha256(f"{array.shape} {array.dtype.str}".encode())
    digest.update(array[places].tobytes())
    return {"samples_sha256": digest.hexdigest()}


def document_hash(document: object) -> str:
    """Return the SHA-256 of a JSON document, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(document, sort_keys=True, default=str).encode()).hexdigest()
