"""What a pass did."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PassReport:
    """What one pass did: ``statistics`` that it found, its tiles and the pixels that these computed."""

    statistics: int
    tile: tuple[int, int]
    tiles: int
    computed_pixels: int
    seconds: float
