"""Pixels from a Zeiss CZI file, read by pylibCZIrw."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from exactile.errors import OptionError, SourceError
from exactile.sources.chunks.decode_pool import DecodePool
from exactile.sources.chunks.grid import ChunkGrid
from exactile.sources.chunks.reader import DecodedChunkReader
from exactile.sources.chunks.source import ChunkedSource
from exactile.sources.czi.blocks import CziBlocks
from exactile.sources.czi.directory import CziDirectory, read_directory
from exactile.sources.czi.handle import CziHandle
from exactile.sources.czi.layout import frame_of, lay_out
from exactile.sources.czi.mask import CoverageMask, notes
from exactile.sources.czi.pixel_size import scaling
from exactile.sources.identity import file_identity, image_identity
from exactile.sources.image_choice import ImageChoice
from exactile.sources.metadata import ImageMetadata
from exactile.sources.positional_file import PositionalFile
from exactile.sources.protocol import Identity
from exactile.sources.validity import ValidMask


class CziSource(ChunkedSource):
    """A plane of a CZI image: uint8, uint16 or float32, exactly pylibCZIrw's pixels, colours as red, green, blue.

    ``series`` chooses the scene, whose image is what its sub-blocks cover in all; a file without scenes is one image.
    Channels are those of the file in order, three of each that is coloured; ``channels`` chooses among them, and has to
    where they are of different types. ``z`` and ``t`` choose the plane. ``level`` chooses by number, ``mpp`` by microns
    per pixel: reduced levels are those that are stored in sub-blocks of exactly 2, 4, ... times fewer pixels a side,
    which lie apart, cover the image, and begin at whole pixels of it. ``workers`` threads decode.

    Pixels that no sub-block covers are 0; ``metadata.notes`` says so, and they have no data (``open_masks``). Masks of
    valid pixels within sub-blocks are not applied.

    Memory beside the kept blocks, for each thread: a block twice, or once and a compressed sub-block three times.

    Raises SourceError when pylibCZIrw is not installed or the file is damaged or of a kind that is not read,
    OptionError for a scene, level or plane that does not exist, ChannelError for ``channels`` that do not exist.
    """

    _reader: DecodedChunkReader

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
            raise OptionError(f"{os.fspath(path)}: axes {axes} were requested, but the axes of a CZI file have names")
        self.stored_path = Path(path)
        self._pool = DecodePool(workers)
        self._file = PositionalFile(path)
        self._handle: CziHandle | None = None
        try:
            directory = read_directory(self._file)
            self._handle = CziHandle(self._file.name)
            self._lay_out(directory, self._handle, choice, channels)
        except BaseException:
            self.close()
            raise

    def _lay_out(
        self, directory: CziDirectory, handle: CziHandle, choice: ImageChoice, channels: Sequence[int] | None
    ) -> None:
        image = lay_out(directory, choice, channels, scaling(handle.metadata()), handle.name)
        if handle.frame != frame_of(directory, None):
            raise SourceError(f"{handle.name}: pylibCZIrw finds an image of another size in it; the file is damaged")
        self._image = image
        self.height, self.width = image.level.height, image.level.width
        self.channels = len(image.channels.wanted)
        self.dtype: np.dtype[Any] = image.channels.kind.dtype
        self.pixel_size_um = image.pixel_size_um
        self._mask = CoverageMask.of(image)
        self.metadata = ImageMetadata(notes=notes(directory, image, self._mask))
        self._choice = replace(choice, level=image.number, mpp=None)
        self._reader = DecodedChunkReader(CziBlocks.of(self._file, handle, directory, image, self._pool))

    def open_masks(self) -> tuple[ValidMask, ...]:
        """Return where sub-blocks lie, unless they cover everything."""
        return () if self._mask is None else (self._mask,)

    @property
    def grid(self) -> ChunkGrid:
        """Of blocks as they are decoded."""
        return self._reader.grid

    def _check_open(self) -> None:
        self._file.check_open()

    def identity(self) -> Identity:
        return image_identity("czi", self, self._choice, self._image.channels.wanted) | file_identity(self._file)

    def close(self) -> None:
        self._pool.close()
        self._file.close()
        if self._handle is not None:
            self._handle.close()
