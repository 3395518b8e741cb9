"""Find the sub-blocks of a CZI file that make up the wanted image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from exactile.errors import SourceError
from exactile.sources.czi.channels import ChosenChannels, choose
from exactile.sources.czi.directory import ABSENT, PLANE_LETTERS, Column, CziDirectory
from exactile.sources.czi.levels import CziLevel, FoundLevels, Frame, find_levels, full_rows, level_places, level_rows
from exactile.sources.czi.pixel_kinds import kind_name
from exactile.sources.czi.places import Places
from exactile.sources.image_choice import ImageChoice, check_number, choose_positions
from exactile.sources.pixel_size import PixelSize, choose_level

COMPRESSIONS = {0: "none", 4: "JPEG XR", 5: "zstd", 6: "zstd"}
"""Those that the library decodes, by their number in the file."""

_UNREAD = {1: "JPEG", 2: "LZW"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CziPlane:
    """One channel of the file at one Z and T: ``at`` as the library takes it, and the numbers of its sub-blocks."""

    at: dict[str, int]
    rows: Column


@dataclass(frozen=True, slots=True, kw_only=True)
class CziImage:
    """A level of a scene (None where the file has none), read from ``planes``, one for each channel of the file.

    ``covered``: what the sub-blocks of the full resolution cover, in pixels of the level, each place of any plane once.
    """

    frame: Frame
    scene: int | None
    number: int
    level: CziLevel
    levels: FoundLevels
    channels: ChosenChannels
    planes: tuple[CziPlane, ...]
    covered: Places
    pixel_size_um: PixelSize | None

    def places(self, directory: CziDirectory, rows: Column) -> Places:
        """Return where sub-blocks lie, in pixels of the level."""
        return level_places(directory, rows, self.level.factor, self.frame)


def lay_out(
    directory: CziDirectory,
    choice: ImageChoice,
    channels: Sequence[int] | None,
    full_pixel_size: PixelSize | None,
    name: str,
) -> CziImage:
    """Return the image that ``choice`` and ``channels`` mean. Raises SourceError, OptionError, ChannelError."""
    scene = _scene(directory, choice, name)
    frame = frame_of(directory, scene)
    position = _position(directory, choice, name)
    chosen = choose(directory, channels, name)
    every = [_plane(directory, position, channel, scene) for channel in chosen.positions]
    full = [_full(directory, plane, name) for plane in every]
    levels = find_levels(directory, [plane.rows for plane in every], frame)
    sizes = [_times(full_pixel_size, level.factor) for level in levels.taken]
    number = choose_level(choice, sizes, name)
    level = levels.taken[number]
    planes = [CziPlane(at=one.at, rows=level_rows(directory, one.rows, level.factor)) for one in every]
    for plane in planes:
        _check_stored(directory, plane.rows, chosen, name)
    covered = level_places(directory, np.concatenate([plane.rows for plane in full]), 1, frame)
    return CziImage(
        frame=frame,
        scene=scene,
        number=number,
        level=level,
        levels=levels,
        channels=chosen,
        planes=tuple(planes),
        covered=covered.reduced(level.factor, level.height, level.width).unique(),
        pixel_size_um=sizes[number],
    )


def frame_of(directory: CziDirectory, scene: int | None) -> Frame:
    """Return the area that all sub-blocks of a scene cover at full resolution, on all planes; of the whole file for
    None.
    """
    rows = directory.full if scene is None else directory.full & (directory.at["S"] == scene)
    y, x = int(directory.y[rows].min()), int(directory.x[rows].min())
    bottom = int((directory.y[rows] + directory.height[rows]).max())
    right = int((directory.x[rows] + directory.width[rows]).max())
    return Frame(y=y, x=x, height=bottom - y, width=right - x)


def _scene(directory: CziDirectory, choice: ImageChoice, name: str) -> int | None:
    """Return its position along S."""
    if not directory.full.any():
        raise SourceError(f"{name}: holds reduced levels alone, and no image of full resolution")
    at = directory.at["S"][directory.full]
    scenes = np.unique(at[at != ABSENT]).tolist()
    number = check_number(choice.series, max(1, len(scenes)), "series", name)
    return int(scenes[number]) if scenes else None


def _position(directory: CziDirectory, choice: ImageChoice, name: str) -> dict[str, int]:
    """Return Z and T of the plane, as the file numbers them, if it has several. Raises OptionError, SourceError."""
    lengths = {letter: directory.extent(letter)[1] for letter in reversed(PLANE_LETTERS)}
    axes = "".join(letter for letter, length in lengths.items() if length > 1 or letter in "TCZ")
    shape = [max(1, lengths[letter]) for letter in axes]
    frame = frame_of(directory, None)
    found = choose_positions(f"{axes}YX", (*shape, frame.height, frame.width), choice, name)
    wanted = dict(zip(axes, found, strict=False))
    return {letter: directory.extent(letter)[0] + wanted[letter] for letter in "TZ" if lengths[letter] > 1}


def _plane(directory: CziDirectory, position: dict[str, int], channel: int | None, scene: int | None) -> CziPlane:
    """Return all its sub-blocks, of every level."""
    at = position if channel is None else position | {"C": channel}
    rows = np.ones(len(directory.x), np.bool_)
    for letter, wanted in at.items():
        rows &= directory.at[letter] == wanted
    if scene is not None:
        # As in the library, a sub-block without a scene belongs to each.
        rows &= (directory.at["S"] == scene) | (directory.at["S"] == ABSENT)
    return CziPlane(at=at, rows=np.nonzero(rows)[0])


def _full(directory: CziDirectory, plane: CziPlane, name: str) -> CziPlane:
    """Return the plane with only its full-resolution sub-blocks. Raises SourceError if there are none."""
    rows = full_rows(directory, plane.rows, name)
    if not len(rows):
        where = ", ".join(f"{letter} {number}" for letter, number in plane.at.items())
        raise SourceError(
            f"{name}: nothing is stored at {where} of this scene; choose another plane, or other channels"
        )
    return CziPlane(at=plane.at, rows=rows)


def _times(size: PixelSize | None, factor: int) -> PixelSize | None:
    return size and (size[0] * factor, size[1] * factor)


def _check_stored(directory: CziDirectory, rows: Column, chosen: ChosenChannels, name: str) -> None:
    """Raise SourceError for sub-blocks of another type than their channel, or with unsupported compression."""
    types = {kind_name(int(number)) for number in np.unique(directory.pixel_type[rows])}
    if types != {chosen.kind.name}:
        raise SourceError(f"{name}: a level of its {chosen.kind.name} pixels is {' and '.join(sorted(types))}")
    for number in np.unique(directory.compression[rows]).tolist():
        if number not in COMPRESSIONS:
            kind = _UNREAD.get(number, f"number {number}")
            raise SourceError(
                f"{name}: its pixels are compressed with {kind}, which pylibCZIrw does not read; save it with ZEN, "
                "uncompressed or with zstd or JPEG XR"
            )
