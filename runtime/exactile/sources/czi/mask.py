"""Pixels of a CZI image that no sub-block covers, and notes on how it is read."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from exactile.geometry import Box
from exactile.sources.czi.directory import ABSENT, CziDirectory
from exactile.sources.czi.layout import CziImage
from exactile.sources.czi.places import Places, covered_pixels


class CoverageMask:
    """A mask: 1 if a sub-block of the full resolution covers a part of the pixel, on at least one plane; else 0.

    ``bare`` pixels are 0; None if they were not counted.
    """

    def __init__(self, height: int, width: int, places: Places, bare: int | None) -> None:
        self.height, self.width, self.dtype = height, width, np.dtype(np.uint8)
        self.bare = bare
        self._places = places

    @classmethod
    def of(cls, image: CziImage) -> Self | None:
        """Return the mask, None if all pixels are covered."""
        height, width = image.level.height, image.level.width
        covered = covered_pixels(image.covered)
        if covered == height * width:
            return None
        return cls(height, width, image.covered, None if covered is None else height * width - covered)

    def read(self, box: Box, out: NDArray[Any]) -> None:
        """Fill ``out`` (H, W, 1)."""
        out[...] = 0
        for number in self._places.touching(box).tolist():
            out[self._places.box(number).intersect(box).slices(box)] = 1

    def close(self) -> None:
        """Nothing is open."""


def notes(directory: CziDirectory, image: CziImage, mask: CoverageMask | None) -> tuple[str, ...]:
    """Return sentences for people."""
    told = [_bare(mask), _apart(directory, image), _levels(image), _pending(directory)]
    return tuple(note for note in told if note is not None)


def _bare(mask: CoverageMask | None) -> str | None:
    if mask is None:
        return None
    which = "pixels" if mask.bare is None else f"the {mask.bare} pixels"
    return f"{which} that no sub-block covers are 0, and have no data"


def _apart(directory: CziDirectory, image: CziImage) -> str | None:
    """Return notes on channels that are stored at different places, and overlapping sub-blocks without an order."""
    if image.level.factor > 1:
        return None
    places = [image.places(directory, plane.rows) for plane in image.planes]
    if any(len(one.unique()) < len(image.covered) for one in places):
        return "its channels are stored at different places; where a channel has no sub-block, it is 0"
    orders = [directory.at["M"][plane.rows] for plane in image.planes]
    ordered = all(len(np.unique(order)) == len(order) and ABSENT not in order for order in orders)
    if not ordered and any(covered_pixels(one) != one.area for one in places):
        return "sub-blocks overlap without an order in the file; there, pylibCZIrw's order is used"
    return None


def _levels(image: CziImage) -> str | None:
    if not image.levels.passed_over:
        return None
    factors = ", ".join(f"1/{factor}" for factor in image.levels.passed_over)
    return f"reduced levels of {factors} are stored in a way that is not read exactly, and are left out"


def _pending(directory: CziDirectory) -> str | None:
    return "the file is marked as not completely written" if directory.pending else None
