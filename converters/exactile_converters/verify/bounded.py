"""A network that runs only where the memory for it is there."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.contract import MemoryModel
from exactile.memory import resident_bytes
from exactile_converters.verify.dependency import Runs

WHOLE_PASS_FACTOR = 2.5
"""Plain ONNX Runtime keeps more than the planned engine: its heap grows in steps."""


class TooLargeError(Exception):
    """A run does not fit the memory that is allowed."""


class Bounded:
    """Runs ``subject`` within ``memory_bytes`` of resident memory of the process, predicted by ``memory``."""

    def __init__(self, subject: Runs, memory: MemoryModel, memory_bytes: int) -> None:
        self._subject, self._memory, self._memory_bytes = subject, memory, memory_bytes
        self.channels: int = subject.channels
        self.dtype: np.dtype[Any] = subject.dtype

    def run(self, image: NDArray[Any]) -> NDArray[Any]:
        """(H, W, C) -> (C', H', W'). Raises TooLargeError, EngineError."""
        height, width = image.shape[:2]
        check_room(self._need(height, width), self._memory_bytes, f"{height} x {width} pixels")
        return self._subject.run(image)

    def fits(self, height: int, width: int) -> bool:
        return self._need(height, width) <= self._memory_bytes

    def _need(self, height: int, width: int) -> int:
        return resident_bytes() + int(self._memory.activation_bytes(height, width) * WHOLE_PASS_FACTOR)


def check_room(need: int, allowed: int, what: str) -> None:
    """Raises TooLargeError where ``need`` bytes are more than are ``allowed``."""
    if need > allowed:
        raise TooLargeError(f"it takes {need >> 20} MiB for {what}, and {allowed >> 20} MiB are allowed")
