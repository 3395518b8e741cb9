"""Compare the results of an exported ONNX graph with those of the original framework."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from exactile.errors import ModelError
from exactile_converters.networks.network import Network

RELATIVE_TOLERANCE = 1e-3
"""Largest allowed difference, relative to the largest value; re-association in float32 stays far below."""

Framework = Callable[[NDArray[np.float32]], NDArray[Any]]
"""Function from a float32 image to the framework's result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Largest difference between the framework and ONNX Runtime, and the largest value, over ``images`` images."""

    max_abs: float
    largest: float
    images: int

    @property
    def tolerance(self) -> float:
        return RELATIVE_TOLERANCE * max(self.largest, 1e-6)

    def __str__(self) -> str:
        return f"max-abs {self.max_abs:.2g} at values up to {self.largest:.3g}, {self.images} image(s)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """A network exported from a framework, with the difference between the framework's results and ONNX Runtime's."""

    network: Network
    agreement: Agreement


def compare_with_framework(
    proto: onnx.ModelProto,
    framework: Framework,
    *,
    channels: int,
    sizes: Sequence[tuple[int, int]],
    name: str,
    output_name: str | None = None,
    images: Sequence[NDArray[np.float32]] = (),
    channels_last: bool = False,
) -> Agreement:
    """Run both on noise of ``sizes`` and on ``images``. Raises ModelError above the tolerance.

    Images are (1, C, H, W) float32, or (1, H, W, C) with ``channels_last``.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    wanted = output_name or session.get_outputs()[0].name
    (entry,) = session.get_inputs()[:1]
    generator = np.random.default_rng(0)
    shapes = [(1, *size, channels) if channels_last else (1, channels, *size) for size in sizes]
    noise = [generator.standard_normal(shape, dtype=np.float32) for shape in shapes]
    difference = largest = 0.0
    tried = [*noise, *images]
    for image in tried:
        theirs = framework(image)
        (ours,) = session.run([wanted], {entry.name: image})
        if theirs.shape != ours.shape:
            raise ModelError(
                f"{name}: for {image.shape}, the framework returns {theirs.shape} and ONNX Runtime {ours.shape}"
            )
        if not np.isfinite(ours).all():
            raise ModelError(f"{name}: the result holds numbers that are not finite")
        difference = max(difference, float(np.abs(theirs.astype(np.float64) - ours).max()))
        largest = max(largest, float(np.abs(theirs).max()))
    found = Agreement(max_abs=difference, largest=largest, images=len(tried))
    if found.max_abs > found.tolerance:
        raise ModelError(
            f"{name}: ONNX Runtime's result is not the framework's: {found} where {found.tolerance:.2g} is allowed; "
            "is the model in evaluation mode, without dropout and random parts?"
        )
    return found
