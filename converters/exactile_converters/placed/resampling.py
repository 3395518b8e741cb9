"""How a Resize or an Upsample resamples, by its attributes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

KINDS = {"nearest": "nearest", "linear": "linear", "bilinear": "linear", "cubic": "cubic"}
COORDINATES = (
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "asymmetric",
    "align_corners",
    "tf_half_pixel_for_nn",
    "tf_crop_and_resize",
)
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
FIRST_OPSET_WITH_MODES = 11
DEFAULT_CUBIC_COEFFICIENT = -0.75


@dataclass(frozen=True, slots=True, kw_only=True)
class Resampling:
    """The attributes that determine taps and weights. Raises ValueError for unsupported ones."""

    kind: str = "nearest"
    """nearest, linear or cubic."""
    coordinates: str = "half_pixel"
    """The coordinate transformation mode; ``tf_crop_and_resize`` is that of the whole: a region from 0 to 1."""
    rounding: str = "round_prefer_floor"
    """The nearest mode; ``simple`` is that of opset 10 and older: up along axes that shrink, down along others."""
    cubic_coefficient: float = DEFAULT_CUBIC_COEFFICIENT
    exclude_outside: bool = False
    antialias: bool = False
    extrapolation: float = 0.0
    """The value where ``tf_crop_and_resize`` lies outside of the operand, even if only by rounding."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS.values():
            raise ValueError(f"mode {self.kind} is none of {', '.join(KINDS)}")
        if self.coordinates not in COORDINATES:
            raise ValueError(f"coordinate mode {self.coordinates} is none of {', '.join(COORDINATES)}")
        if self.rounding not in (*ROUNDINGS, "simple"):
            raise ValueError(f"nearest mode {self.rounding} is none of {', '.join(ROUNDINGS)}")
        if self.antialias and self.kind == "nearest":
            raise ValueError("nearest cannot be antialiased")
        if self.exclude_outside and self.kind != "cubic" and not self.antialias:
            raise ValueError(f"mode {self.kind} cannot exclude what is outside without antialiasing")

    @classmethod
    def of(cls, op_type: str, opset: int, attributes: Mapping[str, Any]) -> Resampling:
        """Read a node. ``attributes`` are those of ``onnx.helper.get_attribute_value`` (text or bytes).

        The region of ``tf_crop_and_resize`` must be the whole; see ``rules.placed_resampling``. Raises ValueError for
        sizes that an aspect ratio policy changes, of which no piece can be computed.
        """
        given = {name: value.decode() if isinstance(value, bytes) else value for name, value in attributes.items()}
        mode = given.get("mode", "nearest")
        if mode not in KINDS:
            raise ValueError(f"mode {mode} is none of {', '.join(KINDS)}")
        if op_type == "Upsample" or opset < FIRST_OPSET_WITH_MODES:
            return cls(kind=KINDS[mode], coordinates="asymmetric", rounding="simple")
        policy = given.get("keep_aspect_ratio_policy", "stretch")
        if policy != "stretch":
            raise ValueError(f"the aspect ratio policy {policy} changes the sizes that are asked for")
        return cls(
            kind=KINDS[mode],
            coordinates=given.get("coordinate_transformation_mode", "half_pixel"),
            rounding=given.get("nearest_mode", "round_prefer_floor"),
            cubic_coefficient=float(np.float32(given.get("cubic_coeff_a", DEFAULT_CUBIC_COEFFICIENT))),
            exclude_outside=bool(given.get("exclude_outside", 0)),
            antialias=bool(given.get("antialias", 0)),
            extrapolation=float(np.float32(given.get("extrapolation_value", 0.0))),
        )
