"""The channels of a CZI file as channels of an image: one of each that is grey, three of each that is coloured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exactile.errors import ChannelError, SourceError
from exactile.sources.channel_choice import ChannelCopy, choose_channels
from exactile.sources.czi.directory import ABSENT, CziDirectory
from exactile.sources.czi.pixel_kinds import READ, PixelKind, kind_name


@dataclass(frozen=True, slots=True, kw_only=True)
class FileChannel:
    """A channel of the file, its ``position`` along C (None where the file has one), and its types of samples."""

    position: int | None
    types: tuple[int, ...]

    @property
    def samples(self) -> int:
        """Channels of the image that it holds."""
        return max(READ[number].samples if number in READ else 1 for number in self.types)

    @property
    def described(self) -> str:
        return " and ".join(map(kind_name, self.types))


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenChannels:
    """``wanted`` channels of the image: ``copies[i]`` takes those that lie in the file's channel ``positions[i]``."""

    wanted: tuple[int, ...]
    kind: PixelKind
    positions: tuple[int | None, ...]
    copies: tuple[ChannelCopy, ...]


def choose(directory: CziDirectory, wanted: Sequence[int] | None, name: str) -> ChosenChannels:
    """Return the channels ``wanted``, all of them for None.

    Raises ChannelError for channels that are not there or of different types, SourceError for types that are not read,
    and where all are wanted and differ.
    """
    found = _file_channels(directory)
    flat = [(channel, sample) for channel in range(len(found)) for sample in range(found[channel].samples)]
    chosen = choose_channels(wanted, len(flat), name)
    holders = sorted({flat[number][0] for number in chosen})
    kind = _kind([found[holder] for holder in holders], _listed(found), name, asked=wanted is not None)
    copies = []
    for holder in holders:
        pairs = [(flat[number][1], target) for target, number in enumerate(chosen) if flat[number][0] == holder]
        copies.append(ChannelCopy(tuple(sample for sample, _ in pairs), tuple(target for _, target in pairs)))
    positions = tuple(found[holder].position for holder in holders)
    return ChosenChannels(wanted=chosen, kind=kind, positions=positions, copies=tuple(copies))


def _file_channels(directory: CziDirectory) -> list[FileChannel]:
    at, full = directory.at["C"], directory.full
    if directory.extent("C")[1] <= 1:
        return [FileChannel(position=None, types=_types(directory, full))]
    positions = np.unique(at[at != ABSENT]).tolist()
    return [FileChannel(position=one, types=_types(directory, at == one)) for one in positions]


def _types(directory: CziDirectory, rows: NDArray[np.bool_]) -> tuple[int, ...]:
    found = directory.pixel_type[rows] if rows.any() else directory.pixel_type
    return tuple(int(number) for number in np.unique(found))


def _kind(holders: Sequence[FileChannel], listed: str, name: str, *, asked: bool) -> PixelKind:
    """Return the common type of all ``holders``."""
    types = {number for holder in holders for number in holder.types}
    if len(types) == 1:
        number = types.pop()
        if number in READ:
            return READ[number]
        read = ", ".join(kind.name for kind in READ.values())
        raise SourceError(
            f"{name}: its pixels are {kind_name(number)}, but only {read} are read; save it as one of them"
        )
    if asked:
        raise ChannelError(f"{name}: the requested channels are of different types: {listed}")
    raise SourceError(
        f"{name}: its channels are of different types: {listed}; choose those of one type with channels (--channels)"
    )


def _listed(found: Sequence[FileChannel]) -> str:
    """Return ``channels 0 to 2 are Bgr24, channel 3 is Gray16``"""
    told, first = [], 0
    for channel in found:
        last = first + channel.samples - 1
        which = f"channels {first} to {last} are" if last > first else f"channel {first} is"
        told.append(f"{which} {channel.described}")
        first = last + 1
    return ", ".join(told)
