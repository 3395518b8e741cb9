"""The reference: one pass of plain ONNX Runtime over the whole image, padded and cropped by numpy."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.geometry import AxisGeometry, Geometry
from exactile_converters.graphs.io import Normalization
from exactile_converters.plain_runs.dependency import Runs

Array = NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class WholePass:
    """One pass over an image.

    ``padded`` (H, W, C) is the network's own input, ``output`` (C', H', W'), of which ``result`` (H, W) is wanted.
    ``geometry`` is that of its size.
    """

    padded: Array
    output: Array
    result: tuple[int, int]
    geometry: Geometry

    @property
    def cropped(self) -> Array:
        """Return the output (C', H', W') without what the padding added."""
        return self.output[:, : self.result[0], : self.result[1]]


def whole_pass(subject: Runs, image: Array, geometry: Geometry, normalization: Normalization) -> WholePass:
    """Run one pass over ``image`` (H, W, C), reflected at the bottom and right if the network refuses its size."""
    height, width = image.shape[:2]
    geometry = geometry.of_size((height, width))
    pads = [(0, axis.accepted_size(n) - n) for axis, n in ((geometry.y, height), (geometry.x, width))]
    padded = normalized(np.pad(image, [*pads, (0, 0)], mode="reflect"), normalization, subject.dtype)
    output = subject.run(padded)
    sizes = _result_size(geometry.y, height), _result_size(geometry.x, width)
    return WholePass(padded=padded, output=output, result=sizes, geometry=geometry)


def normalized(image: Array, normalization: Normalization, dtype: np.dtype[Any]) -> Array:
    """Compute ``(image / scale - mean) / std`` in float32, then convert to the network's own ``dtype``."""
    scale, mean, std = (
        np.asarray(values, np.float32) for values in (normalization.scale, normalization.mean, normalization.std)
    )
    if dtype.kind != "f" and (scale == 1).all() and (mean == 0).all() and (std == 1).all():
        return image.astype(dtype)
    return ((image.astype(np.float32) / scale - mean) / std).astype(dtype)


def _result_size(axis: AxisGeometry, size: int) -> int:
    return min(ceil(size * axis.scale + axis.size_constant), axis.output_size(axis.accepted_size(size)))
