"""Position of an image on the ground, as in GeoTIFF (OGC 19-008r4), and that of its result."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from fractions import Fraction

_MODEL_TYPE_KEY, _PROJECTED = 1024, 1
_LINEAR_UNIT_KEY, _METRE = 3076, 9001
_RASTER_TYPE_KEY = 1025
_PIXEL_IS_POINT = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Georeference:
    """The values of GeoTIFF's tags, empty if a tag is missing.

    ``pixel_scale``: ModelPixelScale, (x, y, z). ``tiepoints``: ModelTiepoint, six numbers each: column, row, depth, and
    their place. ``transformation``: ModelTransformation, 4 x 4 row by row. ``keys``, ``numbers`` and ``text`` define
    the coordinate system of these places.
    """

    pixel_scale: tuple[float, ...] = ()
    tiepoints: tuple[float, ...] = ()
    transformation: tuple[float, ...] = ()
    keys: tuple[int, ...] = ()
    numbers: tuple[float, ...] = ()
    text: str = ""

    def __post_init__(self) -> None:
        if len(self.pixel_scale) not in (0, 3) or len(self.transformation) not in (0, 16) or len(self.tiepoints) % 6:
            raise ValueError(
                f"a georeference of {len(self.pixel_scale)} scales, {len(self.tiepoints)} numbers of tie points and a"
                f" transformation of {len(self.transformation)} is not one that GeoTIFF defines"
            )

    def resampled(
        self, scale: tuple[Fraction, Fraction], origin: tuple[Fraction, Fraction] = (Fraction(0), Fraction(0))
    ) -> Georeference:
        """Return the georeference of a raster whose pixel edge ``i`` lies at ``origin + i / scale`` in this one; both
        (y, x).
        """
        # If a raster's numbers mean the centres of pixels, the edge is half a pixel before them, in each raster.
        half = Fraction(1, 2) if self._is_point else Fraction(0)
        y, x = (start + half / times - half for start, times in zip(origin, scale, strict=True))
        down, right = scale
        found = replace(
            self,
            tiepoints=tuple(
                float((Fraction(value) - (x, y)[at % 6]) * (right, down)[at % 6]) if at % 6 < 2 else value
                for at, value in enumerate(self.tiepoints)
            ),
        )
        if self.pixel_scale:
            wide, high, deep = self.pixel_scale
            found = replace(found, pixel_scale=(float(Fraction(wide) / right), float(Fraction(high) / down), deep))
        if self.transformation:
            found = replace(found, transformation=_moved(self.transformation, scale, (y, x)))
        return found

    def as_plain(self) -> dict[str, list[float] | str]:
        """Return it for JSON."""
        return {name: value if isinstance(value, str) else list(value) for name, value in asdict(self).items()}

    @property
    def pixel_m(self) -> tuple[float, float] | None:
        """Height and width of a pixel in metres; None if places are not in metres, or pixels are skewed."""
        if not {(_MODEL_TYPE_KEY, _PROJECTED), (_LINEAR_UNIT_KEY, _METRE)} <= self._entries or not self.pixel_scale:
            return None
        wide, high, _ = self.pixel_scale
        return (high, wide) if high > 0 and wide > 0 else None

    @property
    def _is_point(self) -> bool:
        return (_RASTER_TYPE_KEY, _PIXEL_IS_POINT) in self._entries

    @property
    def _entries(self) -> set[tuple[int, int]]:
        """Return keys with their numbers."""
        return set(zip(self.keys[4::4], self.keys[7::4], strict=False))


def _moved(
    matrix: tuple[float, ...], scale: tuple[Fraction, Fraction], start: tuple[Fraction, Fraction]
) -> tuple[float, ...]:
    """Return ``matrix`` for columns and rows that begin at ``start`` and are ``scale`` times as many."""
    (y, x), (down, right) = start, scale
    rows = []
    for at in range(0, 16, 4):
        column, row, depth, constant = (Fraction(value) for value in matrix[at : at + 4])
        rows += [float(column / right), float(row / down), float(depth), float(constant + column * x + row * y)]
    return tuple(rows)
