"""Choose one of the images of a file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from exactile.errors import OptionError, SourceError


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageChoice:
    """An image among those of a file: a level of a pyramid of a series, and a plane of it along Z and T.

    ``mpp`` (microns per pixel) chooses the level by its pixel size instead of its number. ``z`` and ``t`` of None take
    the only plane there is. ``page`` instead takes one page of a TIFF file by its number. ``axes`` says what axes
    without names mean. Raises OptionError for choices that exclude each other.
    """

    level: int = 0
    mpp: float | None = None
    series: int = 0
    z: int | None = None
    t: int | None = None
    page: int | None = None
    axes: str | None = None

    def __post_init__(self) -> None:
        if self.page is not None and (
            self.level or self.series or any(v is not None for v in (self.mpp, self.z, self.t))
        ):
            raise OptionError(f"page {self.page} is one image of its own; it goes with no level or series, mpp, z or t")
        if self.mpp is not None and self.level:
            raise OptionError(
                f"level {self.level} and {self.mpp} microns per pixel both choose a level; give one of them"
            )
        if self.mpp is not None and not (math.isfinite(self.mpp) and self.mpp > 0):
            raise OptionError(f"microns per pixel must be a positive number, got {self.mpp}")


def check_number(number: int, count: int, kind: str, name: str, holder: str = "file") -> int:
    """Return ``number``. Raises OptionError if it is not one of ``count`` things, SourceError if there are none."""
    if count == 0:
        raise SourceError(f"{name}: holds no image")
    if not 0 <= number < count:
        raise OptionError(
            f"{name}: {kind} {number} was requested, but the {holder} has {count}, numbered 0 to {count - 1}"
        )
    return number


def check_no_page(choice: ImageChoice, name: str) -> None:
    """Raise OptionError when ``choice`` wants a page of what has none."""
    if choice.page is not None:
        raise OptionError(
            f"{name}: page {choice.page} (--page) was requested, but only TIFF files have pages; leave it out"
        )


def check_single_image(choice: ImageChoice, name: str) -> None:
    """Raise OptionError when ``choice`` wants another image than the only one there is, or asks for its pixel size."""
    check_no_page(choice, name)
    if choice.level:
        raise OptionError(
            f"{name}: level {choice.level} was requested, but only pyramids (TIFF, OME-Zarr, slides) have levels"
        )
    if choice.mpp is not None:
        raise OptionError(f"{name}: {choice.mpp} microns per pixel were requested, but its pixel size is not known")
    check_number(choice.series, 1, "series", name, "image")
    choose_positions("YX", (1, 1), choice, name)


def choose_positions(
    axes: str, shape: Sequence[int], choice: ImageChoice, name: str, *, remedies: Sequence[str] = ()
) -> list[int]:
    """Return the position along every axis of ``axes`` (one letter each), 0 along Y, X, C and S.

    Raises SourceError where an axis is longer than 1 and nothing was chosen along it (``remedies`` end the message),
    OptionError for a position that does not exist.
    """
    wanted = {"Z": choice.z, "T": choice.t}
    for letter, position in wanted.items():
        if position is not None:
            length = shape[axes.index(letter)] if letter in axes else 1
            check_number(position, length, letter.lower(), name, "image")
    open_axes = [
        (letter, size) for letter, size in zip(axes, shape, strict=True)
        if size > 1 and letter not in "YXCS" and wanted.get(letter) is None
    ]  # fmt: skip
    if open_axes:
        options = [
            f"{letter.lower()} (--{letter.lower()}) from 0 to {size - 1}"
            for letter, size in open_axes
            if letter in wanted
        ]
        ways = [f"choose {' and '.join(options)}"] if len(options) == len(open_axes) else []
        ways += remedies
        raise SourceError(
            f"{name}: holds {axes} of {tuple(shape)}, which is more than one image with channels;"
            f" {', or '.join(ways) or 'store the planes as separate images'}"
        )
    return [wanted.get(letter) or 0 for letter in axes]
