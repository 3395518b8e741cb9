"""How many pixels a map has for each of the image's."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

LARGEST_TERM = 100
"""Of a scale that is told from two sizes, the denominator at most: others are none that a network was made for."""

LARGEST_FACTOR = 32
"""Between image and map, where one size alone tells it: usual strides end here, and a pooled image is no map."""


class NoGrowthError(Exception):
    """Sizes that no simple factor explains."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """Along one axis, a map has ``image size * scale + constant`` pixels."""

    scale: Fraction
    constant: Fraction

    @classmethod
    def of(cls, image_px: int, map_px: int, *, more_px: int, grown: int) -> Growth:
        """From the sizes of a map for images of ``image_px``, and of ``more_px`` more. Raises NoGrowthError."""
        exact = Fraction(grown - map_px, more_px)
        scale = exact.limit_denominator(LARGEST_TERM)
        if scale <= 0 or abs((exact - scale) * more_px) >= 1:
            raise NoGrowthError
        return cls(scale=scale, constant=map_px - image_px * scale)

    @classmethod
    def matched(cls, image_px: int, map_px: int, largest: int = LARGEST_FACTOR) -> Growth:
        """From one size alone: the same, a whole multiple, or a whole fraction. Raises NoGrowthError."""
        if map_px < 1 or (map_px == 1 < image_px):
            raise NoGrowthError
        scale = Fraction(map_px, image_px)
        if min(scale.numerator, scale.denominator) > 1 or max(scale.numerator, scale.denominator) > largest:
            raise NoGrowthError
        return cls(scale=scale, constant=Fraction(0))
