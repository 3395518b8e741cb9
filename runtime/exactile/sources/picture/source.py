"""Pixels from a picture: PNG, JPEG, BMP, WebP, JPEG 2000, JPEG XL; decoded whole."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from exactile.errors import OptionError, SourceError
from exactile.geometry import Box
from exactile.sources.axis_order import check_axes
from exactile.sources.channel_choice import ChannelCopy, choose_channels
from exactile.sources.chunks.cache import ChunkKey
from exactile.sources.chunks.decode_pool import DecodePool
from exactile.sources.chunks.grid import ChunkGrid
from exactile.sources.chunks.reader import MOST_CHUNK_BYTES, ChunkForm, DecodedChunkReader
from exactile.sources.damage import CorruptFilling, DamagedArea, OnCorrupt
from exactile.sources.identity import file_identity, image_identity
from exactile.sources.image_choice import ImageChoice
from exactile.sources.metadata import Alpha, ImageMetadata
from exactile.sources.picture.formats import PictureFormat, picture_format, read_header
from exactile.sources.picture.header import PictureHeader
from exactile.sources.positional_file import PositionalFile
from exactile.sources.protocol import Identity, ReadCount, ReadPlan
from exactile.sources.read_request import check_read
from exactile.sources.validity import BitMask, ValidMask

DECODER_BYTES = 8 << 20
"""Bytes of a decoder, whatever it decodes."""


class PictureChunk:
    """The whole picture as the only chunk of an image."""

    def __init__(
        self,
        file: PositionalFile,
        kind: PictureFormat,
        header: PictureHeader,
        copy: ChannelCopy,
        filling: CorruptFilling,
    ) -> None:
        self._file, self._kind, self._header = file, kind, header
        self.filling = filling
        self.pool = DecodePool(1)
        self.chunks_stored = 1
        self.form = ChunkForm(
            grid=ChunkGrid(
                height=header.height, width=header.width, chunk_rows=header.height, chunk_columns=header.width
            ),
            copies=(copy,),
            samples=header.channels,
            dtype=header.dtype,
            fill=0,
        )

    @property
    def peak_bytes(self) -> int:
        """Bytes of the file, its pixels, and the decoder."""
        header = self._header
        scratch = int(header.scratch * header.decoded_bytes / header.dtype.itemsize)
        return self._file.size_bytes + header.decoded_bytes + scratch + DECODER_BYTES

    def decode(self, key: ChunkKey) -> NDArray[Any] | None:  # noqa: ARG002 - there is one
        pixels = self._kind.decode(self._file.read(0, self._file.size_bytes), self._header)
        return pixels[:, :, None] if pixels.ndim == 2 else pixels

    def failure(self, key: ChunkKey, reason: object) -> SourceError:  # noqa: ARG002 - as above
        return SourceError(f"{self._file.name}: cannot be read: {reason}")

    def damage(self, key: ChunkKey, reason: object) -> SourceError:  # noqa: ARG002 - as above
        return SourceError(
            f"{self._file.name}: this {self._kind.name} picture cannot be decoded: {reason}; the file is damaged, copy "
            "it again"
        )


class PictureSource:
    """A picture, recognised by content: samples as stored, uint8 or uint16 (JPEG XL: float32, too).

    Grey, RGB, each with or without alpha. Palettes become RGB (in BMP those of greys grey), fewer than 8 bits of PNG
    are scaled to 255, JPEG's YCbCr is RGB; gamma, colour profiles and EXIF's orientation are not applied.

    It is decoded whole at the first read, and kept until the announced reads are done. If it cannot be decoded, it is
    an error or, with ``on_corrupt`` "fill", all of it is ``corrupt_value`` (default 0) and ``damaged`` reports it.
    JPEG, BMP, WebP and JPEG 2000 have no checksums: damage that still decodes to all pixels is not noticed.

    Raises SourceError for what is damaged or not read, OptionError for axes and a ``corrupt_value`` that it cannot
    have, ChannelError for ``channels`` that do not exist.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        axes: str | None = None,
        channels: Sequence[int] | None = None,
        on_corrupt: OnCorrupt = "fail",
        corrupt_value: float | None = None,
    ) -> None:
        check_axes(axes)
        self.pixel_size_um: tuple[float, float] | None = None
        self._choice = ImageChoice(axes=axes)
        self._file = PositionalFile(path)
        try:
            self._lay_out(channels, on_corrupt, corrupt_value)
        except BaseException:
            self._file.close()
            raise

    def _lay_out(self, channels: Sequence[int] | None, on_corrupt: OnCorrupt, corrupt_value: float | None) -> None:
        name, axes = self._file.name, self._choice.axes
        kind = picture_format(self._file.stream.read(16))
        if kind is None:
            raise SourceError(f"{name}: is none of the pictures that are read")
        header = read_header(kind, self._file)
        if header.decoded_bytes > MOST_CHUNK_BYTES:
            raise SourceError(
                f"{name}: is a {kind.name} picture of {header.height} x {header.width} pixels, which takes "
                f"{header.decoded_bytes / 2**30:.1f} GiB when decoded, and pictures are decoded whole, up to "
                f"{MOST_CHUNK_BYTES >> 30} GiB; store it as tiled TIFF"
            )
        if axes == "CYX" or (axes == "YX" and header.channels > 1):
            raise OptionError(
                f"{name}: axes {axes} were requested, but this picture has {header.channels} channels, YXC"
            )
        self.height, self.width, self.dtype = header.height, header.width, header.dtype
        self.alpha = header.alpha
        marked = header.alpha if channels is None else None
        notes: tuple[str, ...] = ()
        if header.orientation != 1:
            turned = f"its EXIF orientation {header.orientation} is not applied"
            notes = (f"{turned}: the result lies as the pixels are stored",)
        self.metadata = ImageMetadata(alpha=None if marked is None else Alpha(channel=marked), notes=notes)
        self._kind, self._header = kind, header
        self._chosen = choose_channels(channels, header.channels, name)
        self.channels = len(self._chosen)
        self._filling = CorruptFilling(on_corrupt, corrupt_value, header.dtype)
        self._open_reader()

    def _open_reader(self) -> None:
        copy = ChannelCopy(self._chosen, tuple(range(self.channels)))
        self._chunk = PictureChunk(self._file, self._kind, self._header, copy, self._filling)
        self._reader = DecodedChunkReader(self._chunk, unplanned_cache_bytes=self._header.decoded_bytes)

    def leave_out_alpha(self) -> None:
        alpha = self.metadata.alpha
        if alpha is None:
            return
        self._chosen = tuple(channel for channel in self._chosen if channel != alpha.channel)
        self.channels = len(self._chosen)
        self.metadata = replace(self.metadata, alpha=replace(alpha, left_out=True))
        self._reader.release()
        self._open_reader()

    def open_masks(self) -> tuple[ValidMask, ...]:
        """Return its alpha channel, once that is left out: one bit a pixel, for which the picture is decoded again."""
        alpha = self.metadata.alpha
        if alpha is None or not alpha.left_out:
            return ()
        self._reader.release()  # two decoded pictures are not held at once
        self._open_reader()
        filling: OnCorrupt = "fill" if self._filling.fills else "fail"
        return (BitMask(PictureSource(self._file.name, channels=(alpha.channel,), on_corrupt=filling)),)

    @property
    def damaged(self) -> tuple[DamagedArea, ...]:
        """The whole picture, if it was filled."""
        return self._filling.areas

    @property
    def held_bytes(self) -> int:
        """Bytes that reading takes, whatever the plan."""
        return self._chunk.peak_bytes

    def cache_bytes(self, plan: ReadPlan) -> int:  # noqa: ARG002 - held_bytes has all that there is
        return 0

    def prepare(self, plan: ReadPlan, *, cache_bytes: int) -> None:  # noqa: ARG002 - what is kept is needed
        self._reader.prepare(plan, cache_bytes=2 * self._chunk.peak_bytes)

    def read(self, box: Box, out: NDArray[Any]) -> None:
        check_read(self, box, out)
        self._file.check_open()
        self._reader.read(box, out)

    def count(self) -> ReadCount:
        return self._reader.count()

    def identity(self) -> Identity:
        return image_identity("picture", self, self._choice, self._chosen) | file_identity(self._file)

    def close(self) -> None:
        """Drop the pixels; safe to call twice."""
        self._file.close()
        self._reader.release()
