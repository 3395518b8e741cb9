"""A level of a slide in DICOM files, tile by tile as it is stored."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.errors import SourceError
from exactile.sources.channel_choice import ChannelCopy
from exactile.sources.chunks.cache import ChunkKey
from exactile.sources.chunks.decode_pool import DecodePool
from exactile.sources.chunks.grid import ChunkGrid
from exactile.sources.chunks.reader import ChunkForm
from exactile.sources.damage import NOTHING_FILLED, CorruptFilling
from exactile.sources.dicom.frames import Coding, FrameForm
from exactile.sources.dicom.instance import DicomInstance, damage_reported
from exactile.sources.positional_file import DamagedDataError, PositionalFile

_ITEM = b"\xfe\xff\x00\xe0"
"""Tag of an item: an encoded frame lies in one, after its tag and its length of four bytes each."""

_ITEM_BYTES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameFile:
    """Frames from number ``first`` on in ``file``; ``index`` is wsidicom's, of offsets and sizes."""

    file: PositionalFile
    first: int
    index: Any

    def read(self, number: int, form: FrameForm) -> bytes:
        """Return a frame as stored. Raises DamagedDataError if it is not complete, or in several fragments."""
        offset, size_bytes = self.index[number - self.first]
        if offset < _ITEM_BYTES or offset + size_bytes > self.file.size_bytes:
            raise DamagedDataError(
                f"bytes {offset} to {offset + size_bytes} are needed, but the file ends at {self.file.size_bytes}"
            )
        if form.coding is Coding.native:
            return self.file.read(offset, size_bytes)
        stored = self.file.read(offset - _ITEM_BYTES, size_bytes + _ITEM_BYTES)
        length = int.from_bytes(stored[4:_ITEM_BYTES], "little")
        if stored[:4] != _ITEM or length - size_bytes not in (0, 1):
            raise DamagedDataError("its bytes are not one item of the pixel data")
        return stored[_ITEM_BYTES:]


@dataclass(frozen=True, slots=True, kw_only=True)
class TilePlane:
    """The tiles of one optical path at one focal plane: the number of each one's frame, -1 where there is none."""

    path: str
    numbers: NDArray[np.int64]
    files: tuple[FrameFile, ...]
    form: FrameForm
    decoder: Any

    def close(self) -> None:
        """Close the files; safe to call twice."""
        for part in self.files:
            part.file.close()

    def file_of(self, number: int) -> FrameFile:
        return next(file for file in reversed(self.files) if number >= file.first)

    def decode(self, row: int, column: int) -> NDArray[Any] | None:
        """Return (rows, columns, samples) of a tile, also beyond the image; None if it is not stored."""
        number = int(self.numbers[row, column])
        if number < 0:
            return None
        frame = self.file_of(number).read(number, self.form)
        if self.form.coding is Coding.native:
            # wsidicom's own decoder for these is not made for several threads at a time.
            stored = np.frombuffer(frame, self.form.dtype.newbyteorder(">" if self.form.big_endian else "<"))
            return stored.astype(self.form.dtype, copy=False).reshape(self.form.shape)
        self.form.check(frame)
        pixels: NDArray[Any] = self.decoder.decode(frame)
        if not self._is_whole(pixels):
            raise DamagedDataError(f"it decodes to {pixels.shape} instead of {self.form.shape}")
        return pixels.reshape(self.form.shape)

    def _is_whole(self, pixels: NDArray[Any]) -> bool:
        """Return whether these are all pixels of a frame. wsidicom's decoder of RLE drops axes of length 1."""
        shape = self.form.shape
        if self.form.coding is Coding.rle:
            return [size for size in pixels.shape if size > 1] == [size for size in shape if size > 1]
        return pixels.shape == shape or (self.form.samples == 1 and pixels.shape == shape[:2])


def open_plane(instance: DicomInstance, path: str, z: float) -> TilePlane:
    """Open the files of ``instance`` again, for reading at any position; ``close`` of the plane closes them.

    Raises SourceError if the table of frames is damaged, or there are no such tiles.
    """
    with damage_reported(instance.name):
        numbers = instance.frames(path, z)
        indices = [part.frame_index for part in instance.parts]
    if numbers is None:
        raise SourceError(f"{instance.name}: has no tiles of optical path {path} at focal plane {z:g} um")
    with ExitStack() as opened:
        files = []
        for name, part, index in zip(instance.files, instance.parts, indices, strict=True):
            files.append(FrameFile(file=PositionalFile(name), first=int(part.frame_offset), index=index))
            opened.callback(files[-1].file.close)
        opened.pop_all()
    return TilePlane(
        path=path, numbers=numbers, files=tuple(files), form=instance.form, decoder=instance.image_data.decoder
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DicomBlocks:
    """The tiles of ``planes``, one for each channel in grey, or one in colours, as the chunks of an image."""

    level: int
    planes: tuple[TilePlane, ...]
    form: ChunkForm
    pool: DecodePool

    @staticmethod
    def of(
        planes: Sequence[TilePlane], copies: Sequence[ChannelCopy], size: tuple[int, int], level: int, pool: DecodePool
    ) -> DicomBlocks:
        """Return the tiles; ``copies[i]`` takes the wanted channels from ``planes[i]``, all of the same form."""
        frame = planes[0].form
        form = ChunkForm(
            grid=ChunkGrid(height=size[0], width=size[1], chunk_rows=frame.rows, chunk_columns=frame.columns),
            copies=tuple(copies),
            samples=frame.samples,
            dtype=frame.dtype,
            fill=frame.fill,
            decoding_bytes=max(plane.form.decoding_bytes for plane in planes),
        )
        return DicomBlocks(level=level, planes=tuple(planes), form=form, pool=pool)

    @property
    def chunks_stored(self) -> int:
        return sum(int((plane.numbers >= 0).sum()) for plane in self.planes)

    def decode(self, key: ChunkKey) -> NDArray[Any] | None:
        return self.planes[key[0]].decode(key[1], key[2])

    @property
    def filling(self) -> CorruptFilling:
        return NOTHING_FILLED

    def failure(self, key: ChunkKey, reason: object) -> SourceError:
        plane = self.planes[key[0]]
        number = int(plane.numbers[key[1], key[2]])
        where = f"level {self.level}, tile row {key[1]}, column {key[2]} of optical path {plane.path} (frame {number})"
        return SourceError(f"{plane.file_of(number).file.name}: {where} cannot be read: {reason}")

    def damage(self, key: ChunkKey, reason: object) -> SourceError:
        return SourceError(f"{self.failure(key, reason)}; the file is damaged")
