"""Turn QuPath's linear operators on samples before a network into ``(sample / scale - mean) / std``."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from exactile.errors import ModelError
from exactile_converters.networks.declaration import Scaling

Numbers = tuple[float, ...]


class Steps:
    """Operators of QuPath in order; each has one number, or one for each channel."""

    NOTHING = ("op.core.identity", "op.core.convert")
    """Samples are float32 from the beginning."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._scale: Numbers = (1.0,)
        self._mean: Numbers = (0.0,)
        self._std: Numbers = (1.0,)
        self._shifted = False

    @property
    def scaling(self) -> Scaling:
        return Scaling(scale=self._scale, mean=self._mean, std=self._std)

    def add(self, step: Mapping[str, Any]) -> None:
        """Add a step. Raises ModelError for operators that are not linear."""
        kind = step.get("type")
        if kind == "op.core.convert" and step.get("pixelType", "FLOAT32") != "FLOAT32":
            raise ModelError(f"{self._path}: QuPath rounds samples to {step['pixelType']}, which is not known here")
        if kind in self.NOTHING:
            return
        values = step.get("values")
        if kind == "op.core.divide":
            self._divide(self._checked(values))
        elif kind == "op.core.multiply":
            self._divide(tuple(1 / value for value in self._checked(values)))
        elif kind == "op.core.subtract":
            self._subtract(self._checked(values, zero=True))
        elif kind == "op.core.add":
            self._subtract(tuple(-value for value in self._checked(values, zero=True)))
        else:
            raise ModelError(f"{self._path}: QuPath does {kind!r} before the network, which is not known here")

    def of_opencv(self, model: Mapping[str, Any], channels: int | None) -> None:
        """Add the mean that is subtracted and the scale that is multiplied. Raises ModelError."""
        mean, scale = model.get("mean"), model.get("scale", 1.0)
        if model.get("size") is not None:
            raise ModelError(f"{self._path}: QuPath resizes what the network gets ({model['size']}); leave size out")
        if mean is not None:
            self._subtract(self._checked(mean, zero=True)[:channels])
        if scale not in (None, 1, 1.0):
            self._divide(tuple(1 / value for value in self._checked([scale])))

    def _divide(self, values: Numbers) -> None:
        if self._shifted:
            self._std = self._each(self._std, values, operator.mul)
        else:
            self._scale = self._each(self._scale, values, operator.mul)

    def _subtract(self, values: Numbers) -> None:
        shift = self._each(self._std, values, operator.mul)
        self._mean = self._each(self._mean, shift, operator.add)
        self._shifted = True

    def _checked(self, values: Any, *, zero: bool = False) -> Numbers:
        numbers = values if isinstance(values, Sequence) and not isinstance(values, str) else [values]
        fitting = [type(one) in (int, float) and math.isfinite(one) and (zero or one != 0) for one in numbers]
        if not fitting or not all(fitting):
            raise ModelError(f"{self._path}: numbers are expected where QuPath keeps {values!r}")
        return tuple(map(float, numbers))

    def _each(self, ones: Numbers, others: Numbers, combine: Callable[[float, float], float]) -> Numbers:
        """Combine for each channel; a single number is that of all. Raises ModelError where the counts differ."""
        count = max(len(ones), len(others))
        if {len(ones), len(others)} - {1, count}:
            raise ModelError(f"{self._path}: QuPath has numbers for {len(ones)} and for {len(others)} channels")
        return tuple(combine(ones[at % len(ones)], others[at % len(others)]) for at in range(count))
