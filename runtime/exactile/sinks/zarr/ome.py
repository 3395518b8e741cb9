"""The metadata of OME-Zarr 0.5: https://ngff.openmicroscopy.org/0.5/"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from exactile.contract import LabelClass
from exactile.sinks.protocol import ResultSpec

VERSION = "0.5"


def multiscales(spec: ResultSpec, levels: int, name: str) -> dict[str, Any]:
    """Return the ``multiscales`` entry of a group whose arrays are named 0, 1, ...

    Nearest levels share the first pixel of the full resolution; means lie in the middle of their pixels.
    """
    unit = {"unit": "micrometer"} if spec.pixel_size_um is not None else {}
    height, width = spec.pixel_size_um or (1.0, 1.0)
    front = [{"name": "c", "type": "channel"}] if spec.channels else []
    datasets = []
    for level in range(levels):
        factor = 2**level
        ones, zeros = [1.0] * len(front), [0.0] * len(front)
        transforms: list[dict[str, Any]] = [{"type": "scale", "scale": [*ones, height * factor, width * factor]}]
        if spec.channels and level:
            middle = (factor - 1) / 2
            transforms.append({"type": "translation", "translation": [*zeros, height * middle, width * middle]})
        datasets.append({"path": str(level), "coordinateTransformations": transforms})
    return {
        "name": name,
        "axes": [*front, *({"name": axis, "type": "space", **unit} for axis in "yx")],
        "datasets": datasets,
        "type": "mean" if spec.channels else "nearest",
    }


def image_label(classes: Sequence[LabelClass], *, in_image: bool) -> dict[str, Any]:
    """Return the ``image-label`` of a group of labels; ``source`` if it is in the image that it belongs to."""
    found: dict[str, Any] = {}
    if classes:
        found["colors"] = [{"label-value": c.value, "rgba": [*c.rgb, 0 if c.value == 0 else 255]} for c in classes]
        found["properties"] = [{"label-value": c.value, "class": c.name} for c in classes]
    if in_image:
        found["source"] = {"image": "../../"}
    return found
