"""Pixels from a Zarr array or an OME-Zarr image, in a folder or at an address."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from exactile.errors import SourceError
from exactile.sources.address import shown_name
from exactile.sources.channel_choice import choose_channels
from exactile.sources.chunks.decode_pool import DecodePool
from exactile.sources.chunks.reader import DecodedChunkReader
from exactile.sources.chunks.source import ChunkedSource
from exactile.sources.identity import document_hash, image_identity
from exactile.sources.image_choice import ImageChoice, choose_positions
from exactile.sources.protocol import Identity
from exactile.sources.sample_types import delivered_type, native_sample_type
from exactile.sources.zarr.chunks import ZarrChunks
from exactile.sources.zarr.image import ZarrImage, choose_image
from exactile.sources.zarr.store import open_node

MOST_CHANNELS = 1 << 16
"""An array with more has its axes told wrongly, or is damaged."""


class ZarrSource(ChunkedSource):
    """One plane of a Zarr array (version 2 or 3): samples of ``sample_types``, exactly as ``zarr`` reads them.

    ``image`` is a folder or an address that fsspec supports (``http://``, ``s3://``, ...). OME-Zarr images (0.1 to 0.5)
    have named axes and levels: ``level`` chooses one by number, ``mpp`` by microns per pixel, ``series`` the image,
    ``z`` and ``t`` the plane. ``axes`` are those of a plain array. Missing chunks have the array's fill value.
    ``workers`` threads decode; a chunk that holds more planes is decoded for the wanted one.

    Raises SourceError for what is damaged, unreachable or unsupported, OptionError for a level, series, plane or axes
    that do not exist, ChannelError for ``channels`` that do not exist.
    """

    def __init__(
        self,
        image: str | os.PathLike[str],
        *,
        level: int = 0,
        mpp: float | None = None,
        series: int = 0,
        z: int | None = None,
        t: int | None = None,
        axes: str | None = None,
        channels: Sequence[int] | None = None,
        workers: int | None = None,
    ) -> None:
        choice = ImageChoice(level=level, mpp=mpp, series=series, z=z, t=t, axes=axes)
        self.stored_path = Path(image)
        self._store: str | None = shown_name(image)
        self._open(open_node(image), choice, shown_name(image), channels, workers)

    @classmethod
    def of_node(
        cls, node: Any, choice: ImageChoice, *, channels: Sequence[int] | None = None, workers: int | None = None
    ) -> Self:
        """Create a source for an open ``zarr.Array`` or ``zarr.Group``, wherever it is stored."""
        source = cls.__new__(cls)
        source.stored_path = _folder_of(node)
        source._store = None  # noqa: SLF001 - its own
        source._open(node, choice, f"the Zarr node {node.name or '/'}", channels, workers)  # noqa: SLF001
        return source

    def _open(
        self, node: Any, choice: ImageChoice, name: str, channels: Sequence[int] | None, workers: int | None
    ) -> None:
        self._name = name
        self._found = choose_image(node, choice, name)
        self._choice = replace(choice, level=self._found.level, mpp=None)
        self._closed = False
        self._lay_out(self._found, channels, workers)

    def _lay_out(self, found: ZarrImage, channels: Sequence[int] | None, workers: int | None) -> None:
        sizes = _checked_sizes(found, self._name)
        self.height = sizes["Y"]
        self.width = sizes["X"]
        self.stored_dtype = native_sample_type(np.dtype(found.array.dtype), self._name)
        self.dtype = delivered_type(self.stored_dtype)
        self.pixel_size_um = found.pixel_size_um
        positions = tuple(choose_positions(found.axes, found.array.shape, self._choice, self._name))
        self._chosen = choose_channels(channels, sizes.get("C", 1), self._name)
        self.channels = len(self._chosen)
        self._pool = DecodePool(workers)
        access = ZarrChunks.of(
            found.array, found.axes, positions, self._chosen, name=self._name, pool=self._pool, store=self._store
        )
        self._reader = DecodedChunkReader(access)

    def _check_open(self) -> None:
        if self._closed:
            raise SourceError(f"{self._name}: read after close")

    def identity(self) -> Identity:
        """Return the identity of the metadata only: overwritten chunks are not noticed."""
        identity = image_identity("zarr", self, self._choice, self._chosen)
        return identity | {"metadata_sha256": document_hash(self._found.documents)}

    def close(self) -> None:
        self._closed = True
        self._pool.close()


def _folder_of(node: Any) -> Path:
    """Return the path of ``node`` on this machine; a path that does not exist if it is elsewhere."""
    root = getattr(node.store, "root", None)
    return Path(root) / node.path if isinstance(root, str | Path) else Path(str(node.store_path))


def _checked_sizes(found: ZarrImage, name: str) -> dict[str, int]:
    """Return the length of every axis. Raises SourceError unless it is an image with pixels."""
    shape = found.array.shape
    if any(found.axes.count(axis) != 1 for axis in "YX") or found.axes.count("C") > 1:
        raise SourceError(f"{name}: its axes are {found.axes}, but an image has one Y, one X and at most one C")
    if min(shape) < 1:
        raise SourceError(f"{name}: an array of shape {shape} has no pixels")
    if min(found.array.chunks) < 1:
        raise SourceError(f"{name}: has damaged metadata: chunks of {found.array.chunks}")
    sizes = dict(zip(found.axes, shape, strict=True))
    if sizes.get("C", 1) > MOST_CHANNELS:
        raise SourceError(f"{name}: has {sizes['C']} channels, but at most {MOST_CHANNELS} are taken; check its axes")
    return sizes
