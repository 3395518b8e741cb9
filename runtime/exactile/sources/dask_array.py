"""Pixels from a dask array: each chunk is computed when it is first needed, in one thread of a pool."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.errors import SourceError
from exactile.sources.axis_order import order_axes
from exactile.sources.channel_choice import choose_channels
from exactile.sources.chunks.decode_pool import DecodePool
from exactile.sources.chunks.reader import DecodedChunkReader
from exactile.sources.chunks.source import ChunkedSource
from exactile.sources.identity import image_identity
from exactile.sources.image_choice import ImageChoice
from exactile.sources.protocol import Identity
from exactile.sources.sample_types import delivered_type, native_sample_type
from exactile.sources.zarr.chunks import ZarrChunks

NAME = "a dask array"


class DaskSource(ChunkedSource):
    """``array``, (H, W), (H, W, C) or (C, H, W); uint8, uint16 or float32. Its chunks are computed by ``workers``.

    Raises SourceError for another dtype or shape, or an array whose sizes are not known; OptionError for other
    ``axes``; ChannelError for ``channels`` that are not there.
    """

    def __init__(
        self, array: Any, *, axes: str | None = None, channels: Sequence[int] | None = None, workers: int | None = None
    ) -> None:
        if any(size != size for size in array.shape):  # noqa: PLR0124 - dask says NaN for sizes it does not know
            raise SourceError(f"{NAME}: its sizes {array.shape} are not known; call compute_chunk_sizes() on it first")
        order = order_axes(array.shape, axes, NAME)
        self.stored_dtype = native_sample_type(np.dtype(array.dtype), NAME)
        self.dtype = delivered_type(self.stored_dtype)
        self.height, self.width = order.height, order.width
        self.pixel_size_um: tuple[float, float] | None = None
        self._chosen = choose_channels(channels, order.channels, NAME)
        self.channels = len(self._chosen)
        self._token = str(array.name)
        self._choice = ImageChoice(axes=axes)
        self._pool = DecodePool(workers)
        letters = "CYX" if order.planar else "YXC"[: array.ndim]
        access = ZarrChunks.of(
            _Computed(array), letters, (0,) * array.ndim, self._chosen, name=NAME, pool=self._pool, store=None
        )
        self._reader = DecodedChunkReader(access)

    def _check_open(self) -> None:
        """Do nothing: only threads are closed."""

    def identity(self) -> Identity:
        """Return the identity, with dask's name of the array, which changes with its pixels as far as dask knows."""
        return image_identity("dask", self, self._choice, self._chosen) | {"name": self._token}

    def close(self) -> None:
        self._pool.close()


class _Computed:
    """Chunk access for an array; chunks of different sizes are treated as a grid of the largest."""

    def __init__(self, array: Any) -> None:
        self._array = array
        self.shape: tuple[int, ...] = tuple(array.shape)
        self.dtype = np.dtype(array.dtype)
        self.chunks = tuple(max(sizes) for sizes in array.chunks)
        self.shards = None
        self.path = ""
        self.metadata = SimpleNamespace(encode_chunk_key=lambda place: "/".join(map(str, place)))

    def __getitem__(self, selection: tuple[slice | int, ...]) -> NDArray[Any]:
        # Chunks are computed in several threads already.
        found: NDArray[Any] = self._array[selection].compute(scheduler="synchronous")
        return found
