"""Compare the tiles and borders that a model's file declares with those that its graph needs."""

from __future__ import annotations

from exactile.geometry import AxisGeometry, Geometry
from exactile_converters.networks.declaration import Declaration


def tiling_notes(declared: Declaration, geometry: Geometry | None) -> tuple[str, ...]:
    """Return one sentence where the declared border is not what the graph needs.

    ``geometry`` is None where no border suffices: each pixel of the result depends on the whole image.
    """
    if declared.border_px is None:
        return ()
    tiles = "" if declared.tile_px is None else f" in tiles of {_sides(declared.tile_px)}"
    said = f"its file declares a border of {_sides(declared.border_px)} pixels{tiles}"
    if geometry is None:
        return (f"{said}; its results depend on the whole image: with such tiles, they change from tile to tile",)
    needed = (_halo(geometry.y), _halo(geometry.x))
    if needed == declared.border_px:
        return ()
    if all(own >= px for own, px in zip(declared.border_px, needed, strict=True)):
        return (f"{said}; {_sides(needed)} are enough",)
    return (f"{said}; the graph needs {_sides(needed)}: with the declared border, results are wrong at seams",)


def _halo(axis: AxisGeometry) -> int:
    return max(axis.halo_before, axis.halo_after)


def _sides(sides: tuple[int, int]) -> str:
    """Return height x width."""
    return " x ".join(map(str, sides))
