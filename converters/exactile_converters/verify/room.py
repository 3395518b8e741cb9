"""The memory in which tiles and one pass over an image are compared."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from exactile.contract import DeployedModel
from exactile.machine.memory import resident_bytes
from exactile_converters.plain_runs.bounded import pass_bytes

NOISE_BYTES = 2 << 30
"""Most memory for noise that smaller zones could reduce: larger noise proves no more."""

SESSIONS = 3
"""Copies of the network's weights while engines are opened: for one pass, for tiles, and as they are read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """``allowed_bytes`` of resident memory of the process, for ``model`` and plain ONNX Runtime."""

    model: DeployedModel
    allowed_bytes: int

    @property
    def noise_bytes(self) -> int:
        """Return the bytes for noise where smaller noise would also do."""
        return min(self.allowed_bytes, resident_bytes() + NOISE_BYTES)

    def needed(self, size: tuple[int, int]) -> int:
        """Return the peak resident bytes of the process for an image of ``size``, an accepted (height, width)."""
        image = self.model.contract.image
        stored = size[0] * size[1] * image.channels * np.dtype(image.dtype).itemsize
        weights = self.model.contract.memory.weights_bytes * SESSIONS
        return resident_bytes() + weights + stored + pass_bytes(self.model, *size)
