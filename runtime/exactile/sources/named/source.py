"""Pixels from a file whose library reads arrays of named axes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.errors import OptionError, SourceError
from exactile.sources.channel_choice import choose_channels
from exactile.sources.chunks.decode_pool import DecodePool
from exactile.sources.chunks.reader import DecodedChunkReader
from exactile.sources.chunks.source import ChunkedSource
from exactile.sources.description import length_along
from exactile.sources.identity import file_identity, image_identity
from exactile.sources.image_choice import ImageChoice, check_number, choose_positions
from exactile.sources.named.images import NamedFile, NamedImage, Selection
from exactile.sources.pixel_size import choose_level
from exactile.sources.positional_file import PositionalFile
from exactile.sources.protocol import Identity
from exactile.sources.sample_types import delivered_type, native_sample_type
from exactile.sources.zarr.chunks import ZarrChunks


class NamedSource(ChunkedSource):
    """One plane of an image of ``path``, which ``open_file`` opens: its library's pixels, read chunk by chunk.

    ``series`` chooses the image, ``z`` and ``t`` the plane, ``channels`` channels in any order. There is one level:
    ``mpp`` only checks it. ``workers`` threads decode.

    Raises SourceError for what is damaged or not read, OptionError for a choice that does not exist, ChannelError for
    ``channels`` that do not exist.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        kind: str,
        open_file: Callable[[PositionalFile], NamedFile],
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
        choice = ImageChoice(level=level, mpp=mpp, series=series, z=z, t=t)
        if axes is not None:
            raise OptionError(f"{os.fspath(path)}: axes {axes} were requested, but its axes have names; leave them out")
        self._kind = kind
        self.stored_path = Path(path)
        self._pool = DecodePool(workers)
        self._file = PositionalFile(path)
        self._library: NamedFile | None = None
        try:
            self._library = open_file(self._file)
            number = check_number(series, self._library.count, "series", self._file.name)
            self._lay_out(self._library.image(number), choice, channels)
        except BaseException:
            self.close()
            raise

    def _lay_out(self, image: NamedImage, choice: ImageChoice, channels: Sequence[int] | None) -> None:
        name = self._file.name
        _check_axes(image, name)
        level = choose_level(choice, [image.pixel_size_um], name)
        positions = tuple(choose_positions(image.axes, image.shape, choice, name))
        self._choice = replace(choice, level=level, mpp=None)
        self._chosen = choose_channels(channels, length_along("C", image.axes, image.shape), name)
        self.height, self.width = (length_along(axis, image.axes, image.shape) for axis in "YX")
        self.channels = len(self._chosen)
        self.stored_dtype = native_sample_type(image.dtype, name)
        self.dtype = delivered_type(self.stored_dtype)
        self.pixel_size_um = image.pixel_size_um
        access = ZarrChunks.of(
            _Array(image), image.axes, positions, self._chosen, name=name, pool=self._pool, store=None
        )
        self._reader = DecodedChunkReader(access)

    def _check_open(self) -> None:
        self._file.check_open()

    def identity(self) -> Identity:
        return image_identity(self._kind, self, self._choice, self._chosen) | file_identity(self._file)

    def close(self) -> None:
        self._pool.close()
        if self._library is not None:
            self._library.close()
        self._file.close()


class _Array:
    """Chunk access for an array."""

    def __init__(self, image: NamedImage) -> None:
        self._image = image
        self.shape, self.chunks, self.dtype = image.shape, image.chunks, np.dtype(image.dtype)
        self.shards = None
        self.path = ""
        self.metadata = SimpleNamespace(encode_chunk_key=lambda place: "/".join(map(str, place)))

    def __getitem__(self, selection: Selection) -> NDArray[Any]:
        return self._image.read(selection)


def _check_axes(image: NamedImage, name: str) -> None:
    """Raise SourceError unless it is an image with pixels."""
    if any(image.axes.count(axis) != 1 for axis in "YX") or image.axes.count("C") > 1:
        raise SourceError(f"{name}: its axes are {image.axes}, but an image has one Y, one X and at most one C")
    if min(image.shape) < 1:
        raise SourceError(f"{name}: an array of shape {image.shape} has no pixels")
