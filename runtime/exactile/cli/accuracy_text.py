"""Print the effect of reduced precision: the chosen form, and a table of all that were compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from exactile.bundle.accuracy_parts import AccuracyPart, TrialPart

Rows = list[tuple[str, str]]


def accuracy_rows(accuracy: AccuracyPart) -> Rows:
    """Return rows of (name, value): one for the chosen form, one for each that was compared."""
    on = "held-out images" if accuracy.held_out else "the calibration images"
    if accuracy.error is None:
        share = accuracy.different_labels / max(1, accuracy.pixels)
        text = f"{share:.3%} of the labels differ from FP32 on {on}; IoU {_iou(accuracy.iou)}"
    else:
        text = f"values differ from FP32 by {accuracy.error:.3%} (root mean square) on {on}"
    if accuracy.time is not None:
        text += f"; one pass takes {accuracy.time:.2f} of FP32's time"
    rows = [("accuracy", text)]
    if accuracy.tried:
        rows.append(("compared", "ranges, layers in FP32: labels that differ, IoU by class, time by FP32"))
        rows += [("->" if _is_taken(trial, accuracy) else "", _trial(trial)) for trial in accuracy.tried]
    return rows


def _trial(trial: TrialPart) -> str:
    ranges = trial.calibration if trial.percentile is None else f"{trial.calibration} {trial.percentile:g}"
    found = f"{trial.share:7.3%}, {_iou(trial.iou)}" if trial.share is not None else f"error {trial.error:.3%}"
    time = f", {trial.time:.2f}" if trial.time is not None else ""
    return f"{ranges + ', ' + trial.float_layers + ':':35} {found}{time}"


def _is_taken(trial: TrialPart, accuracy: AccuracyPart) -> bool:
    names = ("calibration", "percentile", "float_layers")
    return all(getattr(trial, name) == getattr(accuracy, name) for name in names)


def _iou(values: Sequence[float | None]) -> str:
    return ", ".join("-" if value is None else f"{value:.4f}" for value in values)
