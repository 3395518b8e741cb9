"""The descriptions in a DICOM Segmentation: its slide, its segments, its tiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import exactile
from exactile.contract import LabelClass

TILE_PX = 512
"""Height and width of a frame."""

_MAY_BE_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    *("AccessionNumber", "StudyID", "StudyDate", "StudyTime"),
)
"""Attributes (type 2) that every slide has, and highdicom requires."""

_OWN_SCHEME = "99EXACTILE"
_MOST_TEXT = 64
"""Letters of a meaning or a label in DICOM (VR LO)."""


def segments(labels: Sequence[LabelClass], found: Sequence[int], model: str) -> list[Any]:
    """Return a description of each label but 0, which is the background: of those with names, and of those that were
    found.

    A class with a code has it as its type; another one has a code of the scheme 99EXACTILE, whose meaning is its name.
    """
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.seg import SegmentDescription
    from pydicom.sr.codedict import codes

    named = {one.value: one for one in labels if one.value}
    algorithm = AlgorithmIdentificationSequence(
        name=(model or "network")[:_MOST_TEXT],
        version=exactile.__version__,
        family=codes.DCM.ArtificialIntelligence,
    )
    return [
        SegmentDescription(
            segment_number=value,
            segment_label=_name(named.get(value), value),
            segmented_property_category=_concept("SCT:91723000:Anatomical structure"),
            segmented_property_type=_type_of(named.get(value), value),
            algorithm_type="AUTOMATIC",
            algorithm_identification=algorithm,
            display_color=_color(named.get(value)),
        )
        for value in sorted({*named, *found} - {0})
    ]


def label_map(source: Any, described: Sequence[Any], frames: int, *, background: str = "") -> Any:
    """Return a label map of all of ``source`` (a level of a slide, as pydicom reads it) in tiles, without its frames.

    highdicom takes all pixels at once; so it gets one tile, and the size is set to the slide's afterwards. Segment 0 is
    the background, named ``background`` if there is such a class.
    """
    from highdicom.seg import Segmentation
    from pydicom.uid import RLELossless, generate_uid

    rows, columns = int(source.TotalPixelMatrixRows), int(source.TotalPixelMatrixColumns)
    for name in _MAY_BE_EMPTY:
        if name not in source:
            setattr(source, name, "")
    source.TotalPixelMatrixRows = source.TotalPixelMatrixColumns = TILE_PX
    made = Segmentation(
        source_images=[source],
        pixel_array=np.zeros((1, TILE_PX, TILE_PX), np.uint8 if len(described) < 256 else np.uint16),
        segmentation_type="LABELMAP",
        segment_descriptions=described,
        series_instance_uid=generate_uid(),
        series_number=1,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="exactile",
        manufacturer_model_name="exactile",
        software_versions=exactile.__version__,
        device_serial_number="none",
        transfer_syntax_uid=RLELossless,
        omit_empty_frames=False,
        dimension_organization_type="TILED_FULL",
        tile_pixel_array=True,
        tile_size=(TILE_PX, TILE_PX),
    )
    del made.PixelData
    if background:
        made.SegmentSequence[0].SegmentLabel = background[:_MOST_TEXT]
    made.TotalPixelMatrixRows, made.TotalPixelMatrixColumns, made.NumberOfFrames = rows, columns, frames
    return made


def _name(label: LabelClass | None, value: int) -> str:
    return (label.name if label is not None and label.name else f"class {value}")[:_MOST_TEXT]


def _type_of(label: LabelClass | None, value: int) -> Any:
    if label is not None and label.code:
        return _concept(label.code)
    return _concept(f"{_OWN_SCHEME}:CLASS{value}:{_name(label, value)}")


def _concept(code: str) -> Any:
    """Parse ``SCHEME:VALUE:MEANING``."""
    from highdicom.sr import CodedConcept

    scheme, value, meaning = code.split(":", 2)
    return CodedConcept(value=value, scheme_designator=scheme, meaning=meaning[:_MOST_TEXT])


def _color(label: LabelClass | None) -> Any:
    from highdicom.color import CIELabColor

    return None if label is None else CIELabColor.from_rgb(*label.rgb)
