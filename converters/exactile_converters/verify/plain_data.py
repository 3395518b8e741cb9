"""A verification as plain data, for ``--json`` and the report."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from exactile_converters.plain_runs.claim import AxisProbe, IntegerProbe
from exactile_converters.verify.comparison import Comparison, DoubleError
from exactile_converters.verify.sweep import Sweep, SweepPoint
from exactile_converters.verify.verification import Verification
from exactile_converters.verify.ways import PassesProof


def verification_object(found: Verification) -> dict[str, Any]:
    """Return the object. Sizes are [height, width], positions [y, x], all in pixels."""
    geometry = found.geometry
    return {
        "model": found.model_name,
        "holds": found.holds,
        "stride": {"y": geometry.y.stride, "x": geometry.x.stride},
        "halo": {
            "top": geometry.y.halo_before,
            "bottom": geometry.y.halo_after,
            "left": geometry.x.halo_before,
            "right": geometry.x.halo_after,
        },
        "scale": {"y": str(geometry.y.scale), "x": str(geometry.x.scale)},
        "seed": found.seed,
        "probe": {"tensor": found.probed_tensor, **{probe.axis: _probe(probe) for probe in found.probes}},
        "tiled_against_whole": _comparison(found.comparison) if found.comparison is not None else None,
        "refusal": found.refusal or None,
        "passes": _passes(found.passes) if found.passes is not None else None,
        "sweep": _sweep(found.sweep) if found.sweep is not None else None,
    }


def _probe(probe: AxisProbe) -> dict[str, Any]:
    return {
        "method": probe.method,
        "note": probe.note,
        "stride": {
            "claimed_px": probe.stride,
            "commuting_shifts_px": list(probe.commuting_shifts),
            "verdict": probe.stride_verdict,
        },
        "refused_px": probe.refused_px,
        "integer_weights": _integers(probe.integers),
        "sides": [asdict(side) for side in probe.sides],
        "phases": [asdict(phase) for phase in probe.phases],
    }


def _integers(probe: IntegerProbe | None) -> dict[str, Any] | None:
    if probe is None:
        return None
    return {
        "boxes": probe.boxes,
        "residues": probe.residues,
        "changed_from_beyond": list(probe.beyond),
        "unchanged_by_the_last_pixel": list(probe.idle),
        "commuting_shifts_px": list(probe.commuting_shifts),
        "verdict": probe.verdict,
    }


def _passes(proof: PassesProof) -> dict[str, Any]:
    return {
        "holds": proof.holds,
        "levels": proof.levels,
        "statistics": proof.statistics,
        "ways": [_comparison(way) for way in proof.ways],
        "with_fixed_statistics": _comparison(proof.fixed) if proof.fixed is not None else None,
        "no_float64": proof.no_float64 or None,
        "untried": list(proof.untried),
    }


def _float64(error: DoubleError | None) -> dict[str, Any] | None:
    if error is None:
        return None
    numbers = {name: finite(value) for name, value in asdict(error).items()}
    return {**numbers, "holds": error.holds}


def _comparison(comparison: Comparison) -> dict[str, Any]:
    pixels, difference = comparison.pixels, comparison.difference
    crop = pixels.crop
    return {
        "on": "noise" if crop is None else "image",
        "size": list(pixels.size),
        "image_size": list(pixels.image_size) if pixels.image_size else None,
        "crop_origin": [crop.y.start, crop.x.start] if crop is not None else None,
        "plan": comparison.plan,
        "tile": list(comparison.tile),
        "tiles": comparison.tiles,
        "output_shape": list(comparison.output_shape),
        "different_labels": difference.different_labels,
        "of_these_ties": difference.ties,
        "max_abs": finite(difference.max_abs),
        "rmse": finite(difference.rmse),
        "tolerance": difference.tolerance,
        "different_values": difference.different_values,
        "bit_identical": difference.bit_identical,
        "first_different_pixel": list(difference.first) if difference.first else None,
        "kept_maps": comparison.kept_maps,
        "tiles_of_passes": list(comparison.pass_tiles),
        "against_float64": _float64(comparison.float64),
        "holds": comparison.holds,
    }


def _sweep(sweep: Sweep) -> dict[str, Any]:
    return {"halos": [_point(point) for point in sweep.halos], "offsets": [_point(point) for point in sweep.offsets]}


def _point(point: SweepPoint) -> dict[str, Any]:
    return {name: finite(value) if isinstance(value, float) else value for name, value in asdict(point).items()}


def finite(value: float) -> float | str:
    """Replace infinity, which JSON lacks, by text."""
    return value if value < float("inf") else "infinite"
