"""Run a network for a bounded time, and on images for which none of its maps is too large."""

from __future__ import annotations

from math import prod
from time import monotonic
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from exactile_converters.geometry.feature_maps import image_shape
from exactile_converters.geometry.probe import Probe
from exactile_converters.geometry.trace import ancestors
from exactile_converters.networks.network import Network
from exactile_converters.one_pass.refusal import OnePassError
from exactile_converters.one_pass.scratch import scratch_bytes
from exactile_converters.one_pass.shapes import node_label, shapes_at
from exactile_converters.plain_runs.dependency import Runs
from exactile_converters.probed.refusal import NotLocalError, TooSlowError

LARGEST_BYTES = 1 << 28
"""Most bytes of an operator's results and scratch memory: products of all positions grow with the square."""


class Limited:
    """Runs ``subject``, which is ``network``, for up to ``seconds`` from now; ``count`` is the number of runs made."""

    def __init__(self, subject: Runs, network: Network, seconds: float) -> None:
        self._subject, self._network, self._seconds = subject, network, seconds
        self._nodes = ancestors(network.model, network.result)
        self._until = monotonic() + seconds
        self._allowed_px = 0
        self.channels: int = subject.channels
        self.dtype: np.dtype[Any] = subject.dtype
        self.count = 0

    def run(self, image: NDArray[Any]) -> NDArray[Any]:
        """Map (H, W, C) to (C', H', W'). Raises TooSlowError, NotLocalError for too large images, EngineError."""
        if monotonic() > self._until:
            raise TooSlowError(f"{self._seconds:g} s of runs, {self.count} of them, were not enough to decide")
        height, width = image.shape[:2]
        if height * width > self._allowed_px:
            self._check(height, width)
            self._allowed_px = height * width
        self.count += 1
        return self._subject.run(image)

    def _check(self, height: int, width: int) -> None:
        shape = image_shape(self._network.labels, self._network.channels, (height, width))
        try:
            probe = shapes_at(self._network.model, self._network.image, shape, self._nodes)
        except OnePassError as error:
            raise NotLocalError(str(error)) from error
        for node in self._nodes:
            taken = _bytes(node, probe)
            if taken is None or taken > LARGEST_BYTES:
                much = "is not known" if taken is None else f"is {taken / 2**20:,.0f} MiB"
                raise NotLocalError(
                    f"what {node_label(node)} takes for an image of {height} x {width} pixels {much}: too much "
                    "for a trial run"
                )


def _bytes(node: ir.Node, probe: Probe) -> float | None:
    """Return the bytes of the results and scratch memory; None where that is unknown."""
    beside = scratch_bytes(node, probe.facts)
    if beside is None:
        return None
    facts = [probe.of(value) for value in node.outputs if value.name]
    shapes = [(fact.dtype, fact.shape) for fact in facts if fact is not None and fact.shape is not None]
    return beside + sum(prod(shape) * max(1.0, float(ir.DataType(dtype).itemsize)) for dtype, shape in shapes)
