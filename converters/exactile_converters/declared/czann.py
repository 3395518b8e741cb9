"""Read the description in a ``.czann`` file: ``model.json``, formats 1.0 to 2.1."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from exactile.contract import OutputKind
from exactile.errors import ModelError
from exactile_converters.declared.color_order import blue_first
from exactile_converters.networks.declaration import Declaration, Scaling

OUTPUTS: Mapping[str, OutputKind] = {
    "SingleClassSemanticSegmentation": "labels",
    "MultiClassSemanticSegmentation": "multilabel",
    "Regression": "raw",
}
OTHERS = {
    "SingleClassInstanceSegmentation": "it separates objects, which ZEN does after the network",
    "MultiClassInstanceSegmentation": "it separates objects, which ZEN does after the network",
    "SingleClassClassification": "it classifies the image as a whole, not each pixel",
    "MultiClassClassification": "it classifies the image as a whole, not each pixel",
    "ObjectDetection": "its output is boxes in an image of its tile size, not a value for each pixel",
}
LARGEST_PIXEL_M = 1e-3
"""Larger pixels are not those of a microscope: files contain 1.0 where no size was set."""


def czann_declaration(data: bytes, path: Path) -> Declaration:
    """Return the declaration. Raises ModelError for damaged files, and for models whose output is not a map."""
    described = _described(data, path)
    kind = described.get("Type")
    if kind not in OUTPUTS:
        reason = OTHERS.get(str(kind), f"only {', '.join(OUTPUTS)} are known here")
        raise ModelError(f"{path} is a model of type {kind!r}: {reason}; it cannot be run in tiles")
    height, width, channels = _shape(described, path)
    order, notes = blue_first(channels, "its file does not say, and") if channels in (3, 4) else ((), ())
    return Declaration(
        source="Zeiss CZANN",
        scaling=Scaling(scale=None),
        channels=channels,
        channel_order=order,
        output=OUTPUTS[str(kind)],
        classes=_texts(described.get("Classes"), "Classes", path),
        border_px=_border(described.get("MinOverlap"), path),
        tile_px=(height, width),
        pixel_size_um=_pixel_size_um(described.get("Scaling")),
        notes=notes,
    )


def _described(data: bytes, path: Path) -> dict[str, Any]:
    try:
        described = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: model.json in it is not JSON: {error}") from error
    if not isinstance(described, dict):
        raise ModelError(f"{path}: model.json in it holds {type(described).__name__}, and an object is expected")
    return described


def _shape(described: Mapping[str, Any], path: Path) -> tuple[int, int, int]:
    shape = _numbers(described.get("InputShape"))
    if len(shape) == 4:
        raise ModelError(f"{path} takes volumes, (z, height, width, channels) = {shape}; planar images are segmented")
    if len(shape) != 3 or min(shape) < 1:
        raise ModelError(
            f"{path}: InputShape is {described.get('InputShape')!r}; three positive whole numbers are expected"
        )
    height, width, channels = shape
    return height, width, channels


def _border(overlap: Any, path: Path) -> tuple[int, int] | None:
    """Return half of the overlap of neighbouring tiles."""
    if overlap is None:
        return None
    found = _numbers(overlap)
    if len(found) != 2 or min(found) < 0:
        raise ModelError(f"{path}: MinOverlap is {overlap!r}; two whole numbers of pixels are expected")
    return found[0] // 2, found[1] // 2


def _pixel_size_um(scaling: Any) -> float | None:
    """Return the side of square pixels, if it is one that microscopes have."""
    if not isinstance(scaling, Sequence) or len(scaling) < 2 or not all(isinstance(m, int | float) for m in scaling):
        return None
    x, y = (float(m) for m in scaling[:2])
    return y * 1e6 if 0 < y <= LARGEST_PIXEL_M and math.isclose(x, y, rel_tol=1e-3) else None


def _numbers(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(number) is int for number in value):
        return ()
    return tuple(value)


def _texts(value: Any, key: str, path: Path) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise ModelError(f"{path}: {key} is {value!r}; a list of names is expected")
    return tuple(value)
