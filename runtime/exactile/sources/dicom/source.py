"""Pixels from a whole slide in DICOM files, opened with wsidicom."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from exactile.errors import OptionError, SourceError
from exactile.sources.channel_choice import ChannelCopy, choose_channels
from exactile.sources.chunks.decode_pool import DecodePool
from exactile.sources.chunks.grid import ChunkGrid
from exactile.sources.chunks.reader import DecodedChunkReader
from exactile.sources.chunks.source import ChunkedSource
from exactile.sources.dicom.blocks import DicomBlocks, TilePlane, open_plane
from exactile.sources.dicom.files import slide_headers
from exactile.sources.dicom.header import DicomHeader
from exactile.sources.dicom.instance import check_installed, open_instances
from exactile.sources.dicom.pyramid import DicomLevel, DicomSeries, series_of
from exactile.sources.identity import document_hash, image_identity
from exactile.sources.image_choice import ImageChoice, check_number, choose_positions
from exactile.sources.metadata import ImageMetadata
from exactile.sources.pixel_size import choose_level
from exactile.sources.protocol import Identity


class DicomSource(ChunkedSource):
    """A level of a slide (VL Whole Slide Microscopy Image), exactly wsidicom's pixels: uint8 or uint16 as stored.

    A folder holds all levels of one slide; for a file its own level is read, with the other parts of its concatenation
    beside it. ``level`` chooses by number, from the largest, ``mpp`` by microns per pixel.

    Grey optical paths are channels, in the order of instance numbers, file names and of the paths in them. Each
    coloured optical path is a ``series``, and so is each further pyramid (another place on the slide, or several focal
    planes combined). ``z`` chooses among focal planes, from the lowest, ``channels`` among channels. ``workers``
    threads decode.

    Frames are uncompressed, RLE, JPEG, JPEG-LS, JPEG 2000 or HTJ2K, of 8 bits in grey or colours, or in grey of up to
    16. Colour profiles are not applied. Missing tiles are white (255) in colours and black (0) in grey, as wsidicom
    shows them; ``metadata`` says how many there are.

    Raises SourceError if wsidicom is not installed, or for files that are not a slide, of two slides, damaged or in a
    form that would not be read exactly; OptionError for a level or another image that does not exist, ChannelError for
    ``channels`` that do not exist.
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
        self._name = os.fspath(path)
        if axes not in (None, "YXC"):
            raise OptionError(f"{self._name}: axes {axes} were requested, but the axes of a slide are YXC")
        check_installed(self._name)
        self.stored_path = Path(path)
        self._pool = DecodePool(workers)
        self._planes: list[TilePlane] = []
        try:
            self._headers = slide_headers(path)
            with open_instances(self._headers) as instances:
                self._lay_out(series_of(instances), choice, channels)
        except BaseException:
            self.close()
            raise

    def _lay_out(self, found: list[DicomSeries], choice: ImageChoice, channels: Sequence[int] | None) -> None:
        series = found[check_number(choice.series, len(found), "series", self._name, "slide")]
        sizes = series.pixel_sizes
        number = choose_level(choice, sizes, self._name)
        level = series.levels[number]
        self.height, self.width = level.height, level.width
        available = 3 if series.colour else len(series.paths)
        shape = (len(level.depths), self.height, self.width, available)
        depth = level.depths[choose_positions("ZYXC", shape, choice, self._name)[0]]
        self._chosen = choose_channels(channels, available, self._name)
        self.channels = len(self._chosen)
        self.pixel_size_um = sizes[number]
        self._choice = replace(choice, level=number, mpp=None)
        copies = _copies(series, self._chosen)
        for path in copies:
            self._planes.append(self._plane(level, path, depth))
            self._check_alike(self._planes[0], self._planes[-1])
        blocks = DicomBlocks.of(self._planes, list(copies.values()), (level.height, level.width), number, self._pool)
        self.dtype: np.dtype[Any] = blocks.form.dtype
        self.metadata = ImageMetadata(
            instances=tuple(dict.fromkeys(part.file.name for plane in self._planes for part in plane.files)),
            notes=(*_series_notes(found, series), *_missing_notes(self._planes)),
        )
        self._reader = DecodedChunkReader(blocks)

    def _plane(self, level: DicomLevel, path: str, depth: float) -> TilePlane:
        instance = level.instances.get((path, depth))
        if instance is None:
            raise SourceError(
                f"{self._name}: has no tiles of optical path {path} at focal plane {depth:g} um, in the level of "
                f"{level.height} x {level.width} pixels; choose other channels (--channels) or another plane (--z)"
            )
        return open_plane(instance, path, depth)

    @staticmethod
    def _check_alike(first: TilePlane, other: TilePlane) -> None:
        if other.form.shape != first.form.shape:
            raise SourceError(
                f"{other.files[0].file.name}: has tiles of {other.form.rows} x {other.form.columns} pixels, but "
                f"another channel has {first.form.rows} x {first.form.columns}; read them one at a time (--channels)"
            )

    @property
    def grid(self) -> ChunkGrid:
        """Of tiles as they are stored."""
        return self._reader.grid

    def _check_open(self) -> None:
        self._planes[0].files[0].file.check_open()

    def identity(self) -> Identity:
        """Return name, size, time of the last change and UID of every instance."""
        files = document_hash([_file_state(header) for header in self._headers])
        return image_identity("dicom", self, self._choice, self._chosen) | {"instances_sha256": files}

    def close(self) -> None:
        self._pool.close()
        for plane in self._planes:
            plane.close()


def _copies(series: DicomSeries, chosen: Sequence[int]) -> dict[str, ChannelCopy]:
    """Return for each optical path that is read how its samples become the caller's channels."""
    if series.colour:
        return {series.paths[0]: ChannelCopy(tuple(chosen), tuple(range(len(chosen))))}
    targets: dict[int, list[int]] = {}
    for target, channel in enumerate(chosen):
        targets.setdefault(channel, []).append(target)
    return {series.paths[channel]: ChannelCopy((0,) * len(to), tuple(to)) for channel, to in targets.items()}


def _series_notes(found: Sequence[DicomSeries], series: DicomSeries) -> tuple[str, ...]:
    notes = []
    if len(found) > 1:
        notes.append(
            f"this is series {found.index(series)} of {len(found)} in the slide (--series), optical path "
            f"{', '.join(series.paths)}"
        )
    if not series.colour and len(series.paths) > 1:
        notes.append(f"channels 0 to {len(series.paths) - 1} are the optical paths {', '.join(series.paths)}")
    return tuple(notes)


def _missing_notes(planes: Sequence[TilePlane]) -> tuple[str, ...]:
    missing = sum(int((plane.numbers < 0).sum()) for plane in planes)
    if not missing:
        return ()
    total, fill = sum(plane.numbers.size for plane in planes), planes[0].form.fill
    shown = "white (255)" if fill else "black (0)"
    return (f"{missing} of {total} tiles are not stored; they were taken as {shown}, as wsidicom shows them",)


def _file_state(header: DicomHeader) -> tuple[str, int, int, str]:
    try:
        state = header.path.stat()
    except OSError as error:
        raise SourceError(f"{header.path}: cannot be read: {error.strerror}") from error
    return header.path.name, state.st_size, state.st_mtime_ns, header.instance
