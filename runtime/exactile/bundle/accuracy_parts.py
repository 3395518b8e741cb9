"""How far results of fewer bits are from those of FP32, in ``contract.json``."""

from __future__ import annotations

from exactile.bundle.contract_values import CalibrationName, Count, FloatLayers, Part


class TrialPart(Part, frozen=True, kw_only=True, omit_defaults=True):
    """One form of int8 that was compared: how ranges were found, and which layers stayed in FP32.

    ``share`` is the fraction of labels that differ from FP32; if results are not labels, ``error`` is the root mean
    square of the differences relative to that of the values. ``time`` is that of one pass relative to FP32.
    """

    calibration: CalibrationName
    percentile: float | None = None
    float_layers: FloatLayers
    share: float | None = None
    error: float | None = None
    iou: tuple[float | None, ...] = ()
    time: float | None = None


class AccuracyPart(Part, frozen=True, kw_only=True, omit_defaults=True):
    """Labels of fewer bits compared with those of FP32; ``iou`` by class, null if it has none.

    With ``held_out``, compared on images, or parts of an image, that were not used for calibration. ``tried`` are all
    forms of int8 that were compared, including this one, which was taken. These members were added in version 4.
    """

    calibration: CalibrationName | None
    pixels: Count
    different_labels: Count
    iou: tuple[float | None, ...]
    percentile: float | None = None
    float_layers: FloatLayers = "none"
    error: float | None = None
    time: float | None = None
    held_out: bool = False
    tried: tuple[TrialPart, ...] = ()
