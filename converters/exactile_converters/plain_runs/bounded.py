"""Run a network only where there is memory for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.contract import DeployedModel
from exactile.machine.memory import resident_bytes
from exactile_converters.plain_runs.dependency import Runs

PASS_FACTOR = 1.15
"""``Subject`` allocates each map separately: about what the planned engine takes, whose maps share a region."""

IMAGE_COPIES = 3
"""Copies of an image in single precision: as given, as fed, and intermediate ones."""

RESULT_COPIES = 3
"""Copies of the output: as computed, with its axes in order, and the one that it is compared with."""

FLOAT_BYTES = 4


class TooLargeError(Exception):
    """A run does not fit the allowed memory."""


class Bounded:
    """Runs ``subject`` within ``allowed_bytes`` of resident memory of the process, as ``model`` predicts.

    ``ran`` is called with the number of pixels of each image that was run.
    """

    def __init__(
        self,
        subject: Runs,
        model: DeployedModel,
        allowed_bytes: int,
        ran: Callable[[int], None] = lambda _pixels: None,
    ) -> None:
        self._subject, self._model, self._allowed_bytes, self._ran = subject, model, allowed_bytes, ran
        self.channels: int = subject.channels
        self.dtype: np.dtype[Any] = subject.dtype

    def run(self, image: NDArray[Any]) -> NDArray[Any]:
        """Map (H, W, C) to (C', H', W'). Raises TooLargeError, EngineError."""
        height, width = image.shape[:2]
        check_room(self._need(height, width), self._allowed_bytes, f"{height} x {width} pixels")
        output = self._subject.run(image)
        self._ran(height * width)
        return output

    def fits(self, height: int, width: int) -> bool:
        return self._need(height, width) <= self._allowed_bytes

    def _need(self, height: int, width: int) -> int:
        return resident_bytes() + pass_bytes(self._model, height, width)


def pass_bytes(model: DeployedModel, height: int, width: int) -> int:
    """Return the bytes of one pass of plain ONNX Runtime over ``height`` x ``width`` pixels, without the weights."""
    contract = model.contract
    rows, columns = (
        axis.output_size(axis.accepted_size(size))
        for axis, size in zip((contract.geometry.y, contract.geometry.x), (height, width), strict=True)
    )
    image = height * width * contract.image.channels * FLOAT_BYTES
    result = rows * columns * max(1, contract.result.channels) * np.dtype(contract.result.dtype).itemsize
    activations = int(contract.memory.activation_bytes(height, width) * PASS_FACTOR)
    return activations + IMAGE_COPIES * image + RESULT_COPIES * result


def check_room(need: int, allowed: int, what: str) -> None:
    """Raise TooLargeError where ``need`` bytes are more than ``allowed``."""
    if need > allowed:
        raise TooLargeError(f"it takes {need >> 20} MiB for {what}, and {allowed >> 20} MiB are allowed")
