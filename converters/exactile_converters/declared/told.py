"""What a network's file declares in addition, for ``exactile inspect``."""

from __future__ import annotations

from dataclasses import dataclass

from exactile.geometry import Geometry
from exactile_converters.declared.tiling import tiling_notes
from exactile_converters.networks.declaration import Declaration


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredTold:
    """``source`` is the kind of file; sizes are (height, width) in pixels; ``notes`` compare them with the graph."""

    source: str
    samples: str
    output: str | None
    classes: tuple[str, ...]
    tile: tuple[int, int] | None
    border: tuple[int, int] | None
    pixel_size_um: float | None
    notes: tuple[str, ...]


def declared_told(declared: Declaration | None, geometry: Geometry | None) -> DeclaredTold | None:
    """Describe the declaration. ``geometry`` is that of the graph; None where the network reads the whole image."""
    if declared is None:
        return None
    return DeclaredTold(
        source=declared.source,
        samples=declared.scaling.sentence if declared.scaling is not None else "not declared",
        output=declared.output,
        classes=declared.classes,
        tile=declared.tile_px,
        border=declared.border_px,
        pixel_size_um=declared.pixel_size_um,
        notes=(*declared.notes, *tiling_notes(declared, geometry)),
    )
