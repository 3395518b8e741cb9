"""The tiles and borders that a model's file declares, against those that its graph needs."""

from __future__ import annotations

from exactile.contract import DeployedModel
from exactile_converters.declared.declaration import Declaration


def tiling_notes(declared: Declaration, model: DeployedModel) -> tuple[str, ...]:
    """One sentence where a border is declared that is not what the graph needs, or where no border would do."""
    if declared.border_px is None:
        return ()
    tiles = "" if declared.tile_px is None else f" of tiles of {declared.tile_px[0]} x {declared.tile_px[1]}"
    border = " x ".join(map(str, dict.fromkeys(declared.border_px)))
    said = f"its file declares a border of {border} pixels{tiles}"
    if model.contract.obstacles or model.levels:
        return (
            f"{said}; the network takes statistics of the whole image, and in such tiles it takes others in each: its "
            "maker's tiles differ from one pass however wide the border is",
        )
    y, x = model.contract.geometry.y, model.contract.geometry.x
    needed = tuple(max(axis.halo_before, axis.halo_after) for axis in (y, x))
    if needed == declared.border_px:
        return ()
    wide = " x ".join(map(str, dict.fromkeys(needed)))
    if all(own >= px for own, px in zip(declared.border_px, needed, strict=True)):
        return (f"{said}; {wide} are enough",)
    return (f"{said}; the graph needs {wide}: tiled by what is declared, results are wrong at seams",)
