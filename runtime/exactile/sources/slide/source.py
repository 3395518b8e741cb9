"""Pixels from a whole slide, read by OpenSlide."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from exactile.errors import OptionError, SourceError
from exactile.sources.channel_choice import choose_channels
from exactile.sources.chunks.decode_pool import DecodePool
from exactile.sources.chunks.reader import DecodedChunkReader
from exactile.sources.chunks.source import ChunkedSource
from exactile.sources.identity import document_hash, file_identity, image_identity
from exactile.sources.image_choice import ImageChoice, check_number, choose_positions
from exactile.sources.pixel_size import PixelSize, choose_level, pixel_size, scaled
from exactile.sources.positional_file import PositionalFile
from exactile.sources.protocol import Identity
from exactile.sources.slide.blocks import SlideBlocks
from exactile.sources.slide.handle import SlideHandle


class SlideSource(ChunkedSource):
    """A level of a slide in any format that OpenSlide reads: RGB, uint8, exactly OpenSlide's pixels.

    Missing and transparent pixels are blended with the slide's background colour, else with white. Colour profiles are
    not applied. ``level`` chooses by number, ``mpp`` by microns per pixel; ``channels`` chooses among red, green and
    blue. ``workers`` threads decode.

    OpenSlide interpolates a region of a reduced level whose first pixel is not a whole pixel of the full resolution. So
    only blocks of a fixed grid are requested: a pixel has one value, whatever box it is read with.

    Memory besides the kept blocks: what OpenSlide needs, including 8 MiB of its own cache.

    Raises SourceError if OpenSlide is not installed or cannot read the file, OptionError for a level or another image
    that does not exist, ChannelError for ``channels`` that do not exist.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
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
        if axes not in (None, "YXC"):
            raise OptionError(f"{os.fspath(path)}: axes {axes} were requested, but the axes of a slide are YXC")
        self.stored_path = Path(path)
        self._pool = DecodePool(workers)
        self._file = PositionalFile(path)
        self._handle: SlideHandle | None = None
        try:
            self._handle = SlideHandle(path)
            self._lay_out(self._handle, choice, channels)
        except BaseException:
            self.close()
            raise

    def _lay_out(self, handle: SlideHandle, choice: ImageChoice, channels: Sequence[int] | None) -> None:
        sizes = level_pixel_sizes(handle)
        level = choose_level(choice, sizes, handle.name)
        check_number(choice.series, 1, "series", handle.name)
        self.height, self.width = handle.level_sizes[level]
        choose_positions("YXC", (self.height, self.width, 3), choice, handle.name)
        self._chosen = choose_channels(channels, 3, handle.name)
        self.channels = len(self._chosen)
        self.dtype: np.dtype[Any] = np.dtype(np.uint8)
        self.pixel_size_um = sizes[level]
        self._choice = replace(choice, level=level, mpp=None)
        self._reader = DecodedChunkReader(SlideBlocks.of(handle, level, self._chosen, self._pool))

    def _check_open(self) -> None:
        self._file.check_open()

    def identity(self) -> Identity:
        identity = image_identity("slide", self, self._choice, self._chosen) | file_identity(self._file)
        hashed = self._handle.properties.get("openslide.quickhash-1", "") if self._handle else ""
        return identity | {"quickhash": hashed, "beside_sha256": document_hash(_beside(self._file.name))}

    def close(self) -> None:
        self._pool.close()
        self._file.close()
        if self._handle is not None:
            self._handle.close()


def level_pixel_sizes(handle: SlideHandle) -> list[PixelSize | None]:
    full = pixel_size(*(_number(handle.properties.get(f"openslide.mpp-{axis}")) for axis in "yx"))
    return [scaled(full, handle.level_sizes[0], level) for level in handle.level_sizes]


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _beside(name: str) -> list[tuple[str, int, int]]:
    """Return name, size and time of the last change of the files in the folder that an MRXS slide has beside it."""
    folder = Path(name).with_suffix("")
    if folder == Path(name) or not folder.is_dir():
        return []
    try:
        return [(one.name, one.stat().st_size, one.stat().st_mtime_ns) for one in sorted(folder.iterdir())]
    except OSError as error:
        raise SourceError(f"{name}: its folder {folder} cannot be read: {error.strerror}") from error
