"""The report on a pass."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PassReport:
    """What one pass did: the ``statistics`` that it found, its tiles and the pixels that these computed.

    ``kept_tiles`` of the tiles were kept by the run that this one resumed, and not computed again. ``work`` was
    predicted: its time relative to one pass of the whole network over the image, halo included.
    """

    statistics: int
    tile: tuple[int, int]
    tiles: int
    computed_pixels: int
    seconds: float
    work: float
    kept_tiles: int = 0
