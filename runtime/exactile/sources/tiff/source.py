"""Pixels from a TIFF file, classic or BigTIFF, in strips or tiles."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from exactile.errors import SourceError
from exactile.sources.axis_order import check_axes
from exactile.sources.channel_choice import ChannelCopy, choose_channels
from exactile.sources.chunks.decode_pool import DecodePool
from exactile.sources.chunks.reader import ChunkReader, DecodedChunkReader
from exactile.sources.chunks.source import ChunkedSource
from exactile.sources.damage import CorruptFilling, DamagedArea, OnCorrupt
from exactile.sources.identity import file_identity, image_identity
from exactile.sources.image_choice import ImageChoice
from exactile.sources.positional_file import PositionalFile
from exactile.sources.protocol import Identity
from exactile.sources.sample_types import delivered_type
from exactile.sources.tiff.chunks import RawChunkReader, TiffChunks
from exactile.sources.tiff.layout import TiffLayout
from exactile.sources.tiff.structure import read_layout
from exactile.sources.validity import ValidMask


class TiffSource(ChunkedSource):
    """One image of a TIFF file: samples of ``sample_types``, exactly as ``tifffile`` reads them.

    So colours stay as stored, except that JPEG's YCbCr becomes RGB; zero may be white, and alpha is a channel unless
    ``leave_out_alpha`` removes it.

    ``level`` chooses from a pyramid (0: full resolution), or ``mpp`` does by microns per pixel, within 5 %; ``series``
    chooses from the images of the file, ``z`` and ``t`` a plane of a stack; ``page`` instead takes one page by its
    number. ``channels`` chooses channels, in any order; of channels stored in planes only the chosen ones are read.
    ``axes`` CYX reads the pages of any stack as channels. ``workers`` threads decode.

    A chunk that cannot be decoded is an error or, with ``on_corrupt`` "fill", all its samples are ``corrupt_value``
    (default 0) and ``damaged`` reports it. A truncated file, and a failing disk, are always errors.

    Memory besides the kept chunks: for each worker the stored bytes of a chunk and what its codec needs.

    Raises SourceError for a file that is damaged, truncated or of an unsupported kind, OptionError for a level, series,
    plane, page or axes that do not exist and for a ``corrupt_value`` that samples cannot have, ChannelError for
    ``channels`` that do not exist.
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
        page: int | None = None,
        axes: str | None = None,
        channels: Sequence[int] | None = None,
        workers: int | None = None,
        on_corrupt: OnCorrupt = "fail",
        corrupt_value: float | None = None,
    ) -> None:
        check_axes(axes)
        choice = ImageChoice(level=level, mpp=mpp, series=series, z=z, t=t, page=page, axes=axes)
        self.stored_path = Path(path)
        self._pool = DecodePool(workers)
        self._file = PositionalFile(path)
        try:
            layout = read_layout(self._file, choice)
            if axes == "YX" and layout.channels > 1:
                raise SourceError(f"{self._file.name}: has {layout.channels} channels, so its axes are not YX")
            chosen = choose_channels(channels, layout.channels, self._file.name)
            self._filling = CorruptFilling(on_corrupt, corrupt_value, layout.stored_dtype)
        except BaseException:
            self.close()
            raise
        self.height = layout.grid.height
        self.width = layout.grid.width
        self.channels = len(chosen)
        self.stored_dtype = layout.stored_dtype.newbyteorder("=")
        self.dtype = delivered_type(self.stored_dtype)
        self.pixel_size_um = layout.pixel_size_um
        self.metadata = layout.metadata if channels is None else replace(layout.metadata, alpha=None)
        self._choice = replace(choice, level=layout.level, mpp=None)
        self._chosen = chosen
        self._layout = layout
        self._reader = self._make_reader(layout, chosen)

    def leave_out_alpha(self) -> None:
        alpha = self.metadata.alpha
        if alpha is None:
            return
        self._chosen = tuple(channel for channel in self._chosen if channel != alpha.channel)
        self.channels = len(self._chosen)
        self.metadata = replace(self.metadata, alpha=replace(alpha, left_out=True))
        self._reader = self._make_reader(self._layout, self._chosen)

    def open_masks(self) -> tuple[ValidMask, ...]:
        """Return the file's mask of valid pixels, and its alpha channel once that is left out."""
        masks: list[ValidMask] = []
        if self.metadata.mask_page is not None:
            masks.append(TiffSource(self.stored_path, page=self.metadata.mask_page, workers=1))
        alpha = self.metadata.alpha
        if alpha is not None and alpha.left_out:
            choice: dict[str, Any] = {
                name: getattr(self._choice, name) for name in ("level", "series", "z", "t", "page", "axes")
            }
            filling: OnCorrupt = "fill" if self._filling.fills else "fail"
            masks.append(
                TiffSource(self.stored_path, channels=(alpha.channel,), workers=1, on_corrupt=filling, **choice)
            )
        return tuple(masks)

    def _make_reader(self, layout: TiffLayout, chosen: tuple[int, ...]) -> ChunkReader:
        """Return a reader of the planes with the chosen channels."""
        planes = []
        copies = []
        for number, plane in enumerate(layout.planes):
            first = number * layout.samples
            pairs = [(c - first, target) for target, c in enumerate(chosen) if first <= c < first + layout.samples]
            if pairs:
                planes.append(plane)
                copies.append(ChannelCopy(tuple(s for s, _ in pairs), tuple(t for _, t in pairs)))
        access = TiffChunks(
            file=self._file,
            layout=replace(layout, planes=tuple(planes)),
            copies=tuple(copies),
            pool=self._pool,
            filling=self._filling,
        )
        return RawChunkReader(access) if layout.raw else DecodedChunkReader(access)

    @property
    def damaged(self) -> tuple[DamagedArea, ...]:
        """The chunks that were filled so far."""
        return self._filling.areas

    def _check_open(self) -> None:
        self._file.check_open()

    def identity(self) -> Identity:
        return image_identity("tiff", self, self._choice, self._chosen) | file_identity(self._file)

    def close(self) -> None:
        self._pool.close()
        self._file.close()
