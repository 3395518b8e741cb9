"""Blocks of pixels as they come from the pipeline, checked."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.errors import SinkError
from exactile.geometry import Box
from exactile.sinks.protocol import ResultSpec


def check_spec(spec: ResultSpec) -> None:
    """Raise SinkError for a result without pixels."""
    if min(spec.height, spec.width) < 1 or spec.channels < 0:
        raise SinkError(f"a result of shape {spec.shape} has no pixels to write")


def plane_count(spec: ResultSpec) -> int:
    """Return the number of planes: (H, W) is one, (C, H, W) is C."""
    return spec.channels or 1


def pixel_bytes(spec: ResultSpec) -> int:
    """Return the bytes of one pixel with all its channels."""
    return plane_count(spec) * np.dtype(spec.dtype).itemsize


def as_planes(spec: ResultSpec, box: Box, block: NDArray[Any]) -> NDArray[Any]:
    """Return ``block`` as (C, H, W), C = 1 for labels; a view. Raises SinkError if it does not fit
    ``box`` or ``spec``.
    """
    wanted = (spec.channels, *box.shape) if spec.channels else box.shape
    if block.shape != wanted or block.dtype != np.dtype(spec.dtype):
        raise SinkError(
            f"the sink was given a block of shape {block.shape}, {block.dtype}, "
            f"for a box that takes {wanted}, {spec.dtype}"
        )
    return block.reshape(plane_count(spec), *box.shape)
