"""The chunks of a Zarr array in a folder, one file each, decoded by whichever thread asks.

The zarr package reads through one event loop, for which all other cores wait. For arrays of the usual kinds its work is
simple, and is done here: samples in one order, compressed with Zstandard, Blosc, gzip or not at all. All other arrays
(shards, filters, checksums, transposed samples, other stores) are left to the package.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

_READ_AT_ONCE = 1 << 30
_COMPRESSORS = frozenset(("zstd", "blosc", "gzip"))
"""Compressors of formats 2 and 3, by the same names in numcodecs."""

Decompress = Callable[[bytes], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredChunks:
    """Chunks of ``shape`` and ``dtype``, in the order ``order``, below ``folder``.

    ``key`` gives a chunk's file name by its place; ``fill`` is what a chunk without a file holds.
    """

    folder: str
    key: Callable[[tuple[int, ...]], str]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    order: Literal["C", "F"]
    decompress: tuple[Decompress, ...]
    fill: Any

    def read(self, place: tuple[int, ...]) -> NDArray[Any] | None:
        """Return the whole chunk, read-only, including what lies beyond the array's edges; None if there is no file.

        Raises OSError, and whatever codecs raise.
        """
        data = _content(f"{self.folder}/{self.key(place)}")
        if data is None:
            return None
        for decompress in self.decompress:
            data = decompress(data)
        return np.frombuffer(data, self.dtype).reshape(self.shape, order=self.order)

    def missing(self) -> NDArray[Any]:
        """Return the content of a chunk without a file: a view of one sample."""
        return np.broadcast_to(np.array(self.fill, self.dtype), self.shape)


def stored_chunks(array: Any) -> StoredChunks | None:
    """Return the chunks of a ``zarr.Array``; None if the zarr package has to read them."""
    from zarr.storage import LocalStore

    metadata = array.metadata.to_dict()
    found = _codecs_2(metadata) if metadata["zarr_format"] == 2 else _codecs_3(metadata, array.dtype)
    if found is None or type(array.store) is not LocalStore or array.fill_value is None:
        return None
    order, decompress = found
    return StoredChunks(
        folder=os.path.join(array.store.root, array.path),  # noqa: PTH118 - a string is wanted
        key=array.metadata.encode_chunk_key,
        shape=tuple(array.chunks),
        dtype=array.dtype,
        order=order,
        decompress=decompress,
        fill=array.fill_value,
    )


Codecs = tuple[Literal["C", "F"], tuple[Decompress, ...]]


def _codecs_3(metadata: Mapping[str, Any], dtype: np.dtype[Any]) -> Codecs | None:
    """Return the codecs of format 3: samples as they are, lowest byte first, and compressors around them."""
    samples, *compressors = metadata["codecs"]
    first_byte = samples.get("configuration", {}).get("endian", "little")
    plain = samples["name"] == "bytes" and (dtype.itemsize == 1 or (first_byte == "little" and dtype.str[0] == "<"))
    regular = metadata["chunk_grid"]["name"] == "regular" and not metadata.get("storage_transformers")
    names = [compressor["name"] for compressor in compressors]
    if not plain or not regular or not _COMPRESSORS.issuperset(names):
        return None
    return "C", tuple(_decompressor(name) for name in reversed(names))


def _codecs_2(metadata: Mapping[str, Any]) -> Codecs | None:
    """Return the codecs of format 2, whose data type states the byte order, as the array's does."""
    compressor = metadata.get("compressor")
    if metadata.get("filters") or metadata["order"] not in {"C", "F"}:
        return None
    if compressor is None:
        return metadata["order"], ()
    name = compressor["id"] if isinstance(compressor, Mapping) else compressor.codec_id
    return (metadata["order"], (_decompressor(name),)) if name in _COMPRESSORS else None


def _decompressor(name: str) -> Decompress:
    """Return a decompressor; chunks state how they were compressed, so no configuration of the codec is needed."""
    from numcodecs.registry import get_codec

    decode: Decompress = get_codec({"id": name}).decode
    return decode


def _content(path: str) -> bytes | None:
    """Return the content of a file; None if there is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        size_bytes = os.fstat(descriptor).st_size
        data = os.read(descriptor, size_bytes)
        while len(data) < size_bytes and (more := os.read(descriptor, min(size_bytes, _READ_AT_ONCE))):
            data += more
    except IsADirectoryError:
        return None
    finally:
        os.close(descriptor)
    return data
