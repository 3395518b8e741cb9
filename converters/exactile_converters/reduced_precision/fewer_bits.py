"""Give a network a precision, and measure how many labels that changes."""

from __future__ import annotations

from collections.abc import Sequence

from exactile.bundle.accuracy_parts import AccuracyPart, TrialPart
from exactile.sources.protocol import Source
from exactile_converters.graphs.io import Normalization
from exactile_converters.networks.network import Network
from exactile_converters.reduced_precision.calibration import Chosen, Reference, Trial, choose
from exactile_converters.reduced_precision.calibration_crops import Crops, crops_of
from exactile_converters.reduced_precision.precision import Precision, in_half_precision, refuse_integers
from exactile_converters.reduced_precision.quantize import Calibration
from exactile_converters.verify.claim_check import Progress


def of_precision(
    network: Network,
    *,
    precision: Precision,
    images: Sequence[Source],
    normalization: Normalization,
    calibration: Calibration | None,
    progress: Progress,
) -> tuple[Network, AccuracyPart | None]:
    """Return ``network`` itself for FP32, else its form at ``precision``; and, with images, how many labels change."""
    refuse_integers(network, precision)
    if precision == "fp32":
        return network, None
    crops = crops_of(images, network, normalization) if images or precision == "int8" else None
    if precision == "int8" and crops is not None:
        chosen = choose(network, normalization, crops, calibration=calibration, progress=progress)
        return chosen.network, _accuracy_of(chosen, crops)
    half = in_half_precision(network)
    if crops is None:
        return half, None
    found, _, _ = Reference(network, normalization, crops.held_out).compare(half)
    if found is None:
        return half, None
    part = AccuracyPart(calibration=None, pixels=found.pixels, different_labels=found.different_labels, iou=found.iou)
    return half, part


def _accuracy_of(chosen: Chosen, crops: Crops) -> AccuracyPart:
    best = chosen.trial
    found = best.accuracy
    return AccuracyPart(
        calibration=best.method.calibration,
        percentile=best.method.percentile,
        float_layers=best.float_layers,
        pixels=found.pixels if found is not None else 0,
        different_labels=found.different_labels if found is not None else 0,
        iou=found.iou if found is not None else (),
        error=best.error if found is None else None,
        time=best.time,
        held_out=crops.apart,
        tried=tuple(map(_trial_part, chosen.tried)),
    )


def _trial_part(trial: Trial) -> TrialPart:
    return TrialPart(
        calibration=trial.method.calibration,
        percentile=trial.method.percentile,
        float_layers=trial.float_layers,
        share=trial.error if trial.accuracy is not None else None,
        error=trial.error if trial.accuracy is None else None,
        iou=trial.accuracy.iou if trial.accuracy is not None else (),
        time=trial.time,
    )
