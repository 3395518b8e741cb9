"""Read the metadata of models for Deepness, a plugin of QGIS, as Deepness itself does.

By its documentation ("Adding metadata to ONNX model") and its source (PUTvision/qgis-plugin-deepness): samples of uint8
are divided by 255, then (x - standardization_mean) / standardization_std.
"""

from __future__ import annotations

from collections.abc import Mapping

from exactile.contract import OutputKind
from exactile.errors import ModelError
from exactile_converters.declared.properties import Properties
from exactile_converters.networks.declaration import Declaration, Scaling

OUTPUTS: Mapping[str, OutputKind] = {"Segmentor": "labels", "Regressor": "raw", "Superresolution": "raw"}
OTHERS = {
    "Detector": "its output is boxes, from which Deepness makes objects",
    "Recognition": "it compares images by one vector for each",
}
CM_UM = 1e4
LARGEST_PIXEL_CM = 1e5
"""A kilometre."""


def deepness_declaration(properties: Properties, *, wanted: bool) -> Declaration | None:
    """Return the declaration; None without metadata of Deepness. ``wanted``: an output was asked for by name.

    Raises ModelError for models whose output is not a map of the image, and for damaged metadata.
    """
    kind = _kind(properties)
    if kind is None:
        return None
    if kind in OTHERS and not wanted:
        raise ModelError(
            f"{properties.name} is a model of type {kind} for QGIS Deepness: {OTHERS[kind]}, not a value for each "
            "pixel. --output-name NAME takes one of its outputs as a map"
        )
    threshold, doubts = _threshold(properties, kind)
    tile = _tile(properties)
    factor = (properties.number("reg_output_scaling") or 1.0) if OUTPUTS.get(kind) == "raw" else 1.0
    return Declaration(
        source="QGIS Deepness",
        scaling=_scaling(properties),
        image_dtype="uint8",
        output=OUTPUTS.get(kind),
        output_factor=factor,
        threshold=threshold,
        classes=_classes(properties, kind),
        border_px=_border(properties, tile),
        tile_px=tile,
        pixel_size_um=_pixel_size_um(properties),
        notes=(*doubts, *([f"the output is multiplied by {factor:g} (reg_output_scaling)"] if factor != 1 else [])),
    )


def _kind(properties: Properties) -> str | None:
    """Return the kind in Deepness's terms, which it writes with one capital letter."""
    if any(key.startswith("exactile.") for key in properties.values):
        return None
    try:
        found = properties.read("model_type")
    except ModelError:
        return None
    kind = found.capitalize() if isinstance(found, str) else None
    return kind if kind in OUTPUTS or kind in OTHERS else None


def _scaling(properties: Properties) -> Scaling:
    mean, std = properties.numbers("standardization_mean"), properties.numbers("standardization_std")
    if mean is None or std is None:  # Deepness takes both, or none
        return Scaling(scale=(255.0,), samples=("uint8",))
    return Scaling(scale=(255.0,), mean=mean, std=std, samples=("uint8",))


def _threshold(properties: Properties, kind: str) -> tuple[float | None, tuple[str, ...]]:
    """Return the threshold of one channel; with several, the largest is taken, and a note says what Deepness adds."""
    notes = []
    found = properties.number("seg_thresh") if kind == "Segmentor" else None
    count = properties.channels_out
    if kind == "Segmentor" and properties.number("seg_small_segment"):
        notes.append(
            f"Deepness smooths labels by a median of {properties.number('seg_small_segment'):g} pixels "
            "(seg_small_segment), which is not done here"
        )
    if found is None or count == 1:
        return (found if found is not None and 0 < found < 1 else None), tuple(notes)
    if not count or found > 1 / count:
        notes.append(
            f"Deepness gives class 0 where no channel reaches {found:g} (seg_thresh); here the largest is taken, "
            "however small it is"
        )
    return None, tuple(notes)


def _classes(properties: Properties, kind: str) -> tuple[str, ...]:
    if OUTPUTS.get(kind) != "labels":
        return ()
    names = properties.names("class_names") or properties.names("names")
    return ("background", *names) if len(names) == 1 and properties.channels_out == 1 else names


def _tile(properties: Properties) -> tuple[int, int] | None:
    """Return the tile: Deepness writes ``tiles_size`` but reads ``tile_size``; a size fixed in the network wins."""
    if properties.image_size is not None:
        return properties.image_size
    size = properties.number("tiles_size") or properties.number("tile_size")
    return None if size is None or size < 1 else (int(size), int(size))


def _border(properties: Properties, tile: tuple[int, int] | None) -> tuple[int, int] | None:
    """Return half of the overlap of neighbouring tiles, which is in per cent of a tile."""
    share = properties.number("tiles_overlap")
    if share is None or tile is None or not 0 <= share < 100:
        return None
    height, width = (int(size * share / 100) // 2 for size in tile)
    return height, width


def _pixel_size_um(properties: Properties) -> float | None:
    size = properties.number("resolution")
    return None if size is None or not 0 < size <= LARGEST_PIXEL_CM else size * CM_UM
