"""The memory in which tiles and one pass over an image are compared."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from exactile.contract import DeployedModel
from exactile.machine.memory import resident_bytes
from exactile_converters.verify.bounded import pass_bytes

NOISE_BYTES = 2 << 30
"""What may be taken for noise where less would not do without smaller zones: larger noise proves no more."""

SESSIONS = 3
"""Of the network's weights, for what opening takes: in one pass, in tiles, and as they are read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """``allowed_bytes`` of resident memory of the process, for ``model`` and plain ONNX Runtime."""

    model: DeployedModel
    allowed_bytes: int

    @property
    def noise_bytes(self) -> int:
        """What is taken where the image is noise and a smaller one would do as well."""
        return min(self.allowed_bytes, resident_bytes() + NOISE_BYTES)

    def needed(self, size: tuple[int, int]) -> int:
        """Resident bytes of the process at the most, for an image of ``size``, an accepted (height, width)."""
        image = self.model.contract.image
        stored = size[0] * size[1] * image.channels * np.dtype(image.dtype).itemsize
        weights = self.model.contract.memory.weights_bytes * SESSIONS
        return resident_bytes() + weights + stored + pass_bytes(self.model, *size)
