"""The results of ``exactile inspect``, as plain data."""

from __future__ import annotations

from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exactile.cli.size_memory import SizeMemory
from exactile.cli.size_text import remainders
from exactile.plan.strip_costs import strip_costs
from exactile.plan.tile_costs import TileCost, tile_costs

if TYPE_CHECKING:
    from exactile.contract import StripModel, Verification
    from exactile.geometry import AxisGeometry, Geometry


def inspection_object(
    inspection: Any, model: Path, known: Verification | None, at: SizeMemory | None = None
) -> dict[str, Any]:
    """Convert the converter's ``Inspection``; pairs of axes are objects with ``y`` and ``x``, sizes are in pixels.

    ``known`` says how the claim is known to hold; ``at`` is the memory for an image of one size.
    """
    geometry: Geometry | None = inspection.geometry
    both = {"y": geometry.y, "x": geometry.x} if geometry else {}
    return {
        "model": str(model),
        "tileable": geometry is not None,
        "verification": asdict(known) if known is not None else None,
        "stride": {axis: one.stride for axis, one in both.items()} or None,
        "halo": halo_object(geometry) if geometry else None,
        "scale": {axis: str(one.scale) for axis, one in both.items()} or None,
        "offset": {axis: str(one.origin) for axis, one in both.items()} or None,
        "sizes": {axis: sizes_object(one) for axis, one in both.items()} or None,
        "cost": cost_object(inspection.cost),
        "tiles": [tile_object(tile) for tile in tile_costs(geometry, inspection.memory)] if geometry else [],
        "strips": strips_object(geometry, inspection.strips) if geometry and inspection.strips else None,
        "no_strips_reason": inspection.no_strips_reason or None,
        "no_one_pass_reason": inspection.no_one_pass_reason or None,
        "halo_side": inspection.profile.side if inspection.profile else None,
        "halo_path": [
            {"node": step.node, "op": step.op, "adds": number(step.adds), "cumulative": number(step.cumulative)}
            for step in (inspection.profile.steps if inspection.profile else ())
        ],
        "at_size": asdict(at) if at is not None else None,
        "passes": passes_object(inspection.passes) if inspection.passes is not None else None,
        "probe": probe_object(inspection),
        "obstacles": [obstacle_object(found) for found in inspection.obstacles],
        "inputs": [
            {**_tensor(tensor), "image_channels": list(tensor.image_channels or ())} for tensor in inspection.inputs
        ],
        "outputs": [_tensor(tensor) for tensor in inspection.outputs],
        "labels": labels_object(inspection.result) if inspection.result is not None else None,
        "declared": asdict(inspection.declared) if inspection.declared is not None else None,
    }


def probe_object(inspection: Any) -> dict[str, Any] | None:
    """Return what runs of a refused network show, which is not proven; None for a network that is not refused.

    ``halo`` is without the ``margin`` that --trust-probe adds; both are null where runs show none, for ``reason``.
    """
    found, reason = inspection.probed, inspection.not_probed_reason
    if found is None and not reason:
        return None
    axes = {"y": found.y, "x": found.x} if found is not None else {}
    halo = None
    if found is not None:
        halo = {"top": found.y.before, "bottom": found.y.after, "left": found.x.before, "right": found.x.after}
    return {
        "local": found is not None,
        "proven": False,
        "halo": halo,
        "margin": {axis: one.margin for axis, one in axes.items()} or None,
        "period": {axis: one.period for axis, one in axes.items()} or None,
        "runs": found.runs if found is not None else None,
        "reason": reason or None,
    }


def obstacle_object(found: Any) -> dict[str, Any]:
    """Describe one kind of obstacle by its first ``node``; ``nodes`` lists all, ``consequences`` what follows from
    them.

    ``statistic``: a number of the whole image, which passes compute; ``module`` is the path of the first node's module
    where the file contains it in addition to the node's name.
    """
    return {
        "node": found.node,
        "op": found.op,
        "reason": found.reason,
        "remedy": found.remedy,
        "count": found.count,
        "nodes": [found.node, *found.others],
        "module": found.module or None,
        "statistic": found.statistic,
        "consequences": [{"node": one.node, "op": one.op, "reason": one.reason} for one in found.consequences],
    }


def passes_object(passes: Any) -> dict[str, Any]:
    """Describe the passes before that of the result; ``times`` is the work of all relative to one, each from the image.

    ``kept_times`` is their predicted time where maps are kept.
    """
    return {
        "before": [
            {
                "statistics": [{"kind": found.kind, "of": found.of} for found in one.statistics],
                "halo": halo_object(one.geometry),
            }
            for one in passes.passes
        ],
        "halo": halo_object(passes.geometry),
        "times": float(passes.times) if passes.times is not None else None,
        "kept_times": passes.kept_times,
        "kept_bytes_per_pixel": passes.kept_bytes,
    }


def sizes_object(axis: AxisGeometry) -> dict[str, Any]:
    """Return the remainders modulo ``step`` of accepted sizes: of tiles, and of images in one piece."""
    cut, one_piece = remainders(axis)
    return {
        "step": axis.stride,
        "remainder": axis.remainder,
        "own_remainders": cut,
        "one_piece_remainders": one_piece,
        "one_piece_reason": next((other.one_pass for other in axis.others or () if other.one_pass), None),
    }


def labels_object(result: Any) -> dict[str, Any]:
    """Describe the default result of ``run``."""
    return {"rule": result.rule, "doubt": result.doubt or None, "dtype": result.stored_dtype}


def halo_object(geometry: Geometry) -> dict[str, int]:
    return {
        "top": geometry.y.halo_before,
        "bottom": geometry.y.halo_after,
        "left": geometry.x.halo_before,
        "right": geometry.x.halo_after,
    }


def cost_object(cost: Any) -> dict[str, Any]:
    """Describe the cost; ``at`` is the image size (height, width) of a cost that depends on it."""
    return {
        "mac_per_pixel": number(cost.mac_per_pixel) if cost.mac_per_pixel is not None else None,
        "parameters": cost.parameters,
        "at": list(cost.at) if cost.at else None,
    }


def tile_object(tile: TileCost) -> dict[str, Any]:
    """Describe a tile, [height, width]; null where the tile is too small for the halo or the memory is unknown."""
    return {
        "tile": list(tile.tile),
        "memory_bytes": tile.memory_bytes,
        "memory_bytes_per_megapixel": tile.memory_bytes_per_megapixel,
        "image_size": list(tile.image),
        "computed_over_wanted": round(tile.computed_over_wanted, 4) if tile.computed_over_wanted else None,
    }


def strips_object(geometry: Geometry, strips: StripModel) -> dict[str, Any]:
    """Describe strips: ``lag_rows`` counts result rows, the others image rows; predicted time is in passes."""
    return {
        "lag_rows": strips.lag,
        "startup_rows": strips.startup_rows,
        "least_last_rows": strips.least_last_rows,
        "carried_maps": len(strips.carries),
        "usual": [
            {
                "rows": cost.rows,
                "width": cost.width,
                "predicted_passes": round(cost.passes, 4),
                "memory_bytes": cost.memory_bytes,
                "carry_bytes": cost.carry_bytes,
            }
            for cost in strip_costs(geometry, strips)
        ],
    }


def number(value: Fraction) -> int | float:
    """Return an integer where it is one."""
    return int(value) if value.denominator == 1 else float(value)


def _tensor(tensor: Any) -> dict[str, Any]:
    return {"name": tensor.name, "dtype": tensor.dtype, "shape": list(tensor.shape)}
