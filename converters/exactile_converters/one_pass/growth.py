"""Infer how many pixels a map has for each pixel of the image."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

LARGEST_TERM = 100
"""Largest denominator of a scale that is inferred from two sizes: networks are not designed for others."""

LARGEST_FACTOR = 32
"""Largest factor between image and map that is inferred from one size: usual strides end here, and a pooled image is
not a map."""


class NoGrowthError(Exception):
    """Sizes that no simple factor explains."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """Along one axis, a map has ``image size * scale + constant`` pixels."""

    scale: Fraction
    constant: Fraction

    @classmethod
    def of(cls, image_px: int, map_px: int, *, more_px: int, grown: int) -> Growth:
        """Infer it from the sizes of a map for images of ``image_px``, and ``more_px`` more. Raises NoGrowthError."""
        exact = Fraction(grown - map_px, more_px)
        scale = exact.limit_denominator(LARGEST_TERM)
        if scale <= 0 or abs((exact - scale) * more_px) >= 1:
            raise NoGrowthError
        return cls(scale=scale, constant=map_px - image_px * scale)

    @classmethod
    def matched(cls, image_px: int, map_px: int, largest: int = LARGEST_FACTOR) -> Growth:
        """Infer it from one size: the same, an integer multiple, or an integer fraction. Raises NoGrowthError."""
        if map_px < 1 or (map_px == 1 < image_px):
            raise NoGrowthError
        scale = Fraction(map_px, image_px)
        if min(scale.numerator, scale.denominator) > 1 or max(scale.numerator, scale.denominator) > largest:
            raise NoGrowthError
        return cls(scale=scale, constant=Fraction(0))
