"""Quantise a network to INT8 in several forms, compare them on held-out images, and choose the best.

A form is a method to find ranges (min-max, percentiles, entropy) and a choice of what stays in FP32: nothing, the first
layer, the last one, or both. The form that changes the fewest labels is best; among forms that are hardly worse, the
fastest is chosen.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.contract import DeployedModel
from exactile.errors import ModelError, OptionError
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource
from exactile_converters.deploy import deploy
from exactile_converters.graphs.io import Normalization
from exactile_converters.networks.network import Network
from exactile_converters.reduced_precision.calibration_crops import Crop, Crops, as_fed
from exactile_converters.reduced_precision.quantize import (
    FLOAT_LAYERS,
    IN_FLOAT,
    METHODS,
    WEIGHTED,
    Calibration,
    FloatLayers,
    Method,
    Quantizer,
    layers_in_float,
)

Progress = Callable[[int, int], None]

LONGEST_S = 300.0
"""No further form is tried after this time."""

SLIGHTLY_WORSE = 1.1
"""A form may be worse than the best by this factor, or by ``SLIGHT_SHARE`` of all labels, and still be chosen for
speed."""

SLIGHT_SHARE = 1e-4
TIMED_PX = 512
TIMED_ROUNDS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """Labels of a changed network compared with FP32. ``iou`` is by class, None for a class that never occurs."""

    pixels: int
    different_labels: int
    iou: tuple[float | None, ...]

    @property
    def share(self) -> float:
        return self.different_labels / max(1, self.pixels)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One form and its error.

    ``error`` is the share of labels that differ. Where results are not labels, ``accuracy`` is None and ``error`` is
    the root mean square of the differences divided by that of the values. ``time`` is the time of one pass relative to
    FP32, None where it was not measured.
    """

    method: Method
    float_layers: FloatLayers
    accuracy: Accuracy | None
    error: float
    time: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The best form, its accuracy, and all forms that were tried, in order."""

    network: Network
    trial: Trial
    tried: tuple[Trial, ...]


class Reference:
    """Results of the FP32 network on crops, computed once."""

    def __init__(self, network: Network, normalization: Normalization, crops: Sequence[Crop]) -> None:
        self._normalization, self._crops = normalization, crops
        self._kind = "labels"
        try:
            self.model = self._deployed(network)
        except OptionError:
            self._kind = "raw"
            self.model = self._deployed(network)
        self._results = _results(self.model, crops)

    def compare(self, changed: Network) -> tuple[Accuracy | None, float, DeployedModel]:
        """Return the accuracy of ``changed``, which is not modified, its relative error, and its deployed model."""
        model = self._deployed(changed)
        results = _results(model, self._crops)
        if self._kind == "raw":
            return None, _relative_error(self._results, results), model
        found = compared(self._results, results, max(2, self.model.contract.result.classes))
        return found, found.share, model

    def timing_samples(self) -> NDArray[Any]:
        """Return samples larger than a crop, so that the time measured is the network's."""
        axes = self.model.contract.geometry.y, self.model.contract.geometry.x
        height, width = (axis.accepted_size(TIMED_PX) for axis in axes)
        samples = self._crops[0].samples
        times = -(-height // samples.shape[0]), -(-width // samples.shape[1])
        return np.ascontiguousarray(np.tile(samples, (*times, 1))[:height, :width])

    def _deployed(self, network: Network) -> DeployedModel:
        return deploy(
            network.copy(),
            image_dtype=self._crops[0].samples.dtype.name,
            normalization=self._normalization,
            output="labels" if self._kind == "labels" else "raw",
            strips=False,
        )


def choose(
    network: Network,
    normalization: Normalization,
    crops: Crops,
    *,
    calibration: Calibration | None = None,
    progress: Progress = lambda _done, _steps: None,
) -> Chosen:
    """Return the best form of INT8 for ``network``, which is not modified; with ``calibration``, only by that method.

    ``progress`` gets steps done and the total. Raises ModelError.
    """
    reference = Reference(network, normalization, crops.held_out)
    methods = [method for method in METHODS if calibration in (None, method.calibration)]
    fed = [as_fed(crop.pixels, network) for crop in crops.calibration]
    with Quantizer(network, fed) as quantizer:
        search = _Search(quantizer, reference, methods, _possible(network), progress)
        return search.run()


class _Search:
    def __init__(
        self,
        quantizer: Quantizer,
        reference: Reference,
        methods: Sequence[Method],
        layers: Sequence[FloatLayers],
        progress: Progress,
    ) -> None:
        self._quantizer, self._reference = quantizer, reference
        self._methods, self._layers, self._progress = methods, layers, progress
        self._tried: list[Trial] = []
        self._models: dict[FloatLayers, DeployedModel] = {}
        self._until = time.monotonic() + LONGEST_S
        self._done = 0
        outer = min(2, len(layers))
        self._steps = len(methods) * (1 + outer) + len(layers) - outer + 1

    def run(self) -> Chosen:
        """Try all methods with everything and with the least quantised, then the other choices for the best method."""
        for method in self._methods:
            if self._tried and time.monotonic() > self._until:
                break
            self._quantizer.calibrate(method)
            self._step()
            for layers in dict.fromkeys((self._layers[-1], self._layers[0])):
                self._try(method, layers)
        best = min(self._tried, key=lambda trial: trial.error).method
        for layers in self._layers[1:-1]:
            self._try(best, layers)
        self._time()
        chosen = best_of(self._tried)
        self._progress(self._steps, self._steps)
        made = self._quantizer.quantized(chosen.method, chosen.float_layers)
        return Chosen(network=made, trial=chosen, tried=tuple(self._tried))

    def _try(self, method: Method, layers: FloatLayers) -> None:
        if not self._tried or time.monotonic() <= self._until:
            accuracy, error, model = self._reference.compare(self._quantizer.quantized(method, layers))
            self._models[layers] = model
            self._tried.append(Trial(method=method, float_layers=layers, accuracy=accuracy, error=error))
        self._step()

    def _time(self) -> None:
        """Time the forms in turn, relative to FP32 in the same round. How ranges were found makes no difference."""
        samples = self._reference.timing_samples()
        seconds: dict[FloatLayers, list[float]] = {layers: [] for layers in self._models}
        with ExitStack() as opened:

            def session(model: DeployedModel) -> Session:
                return opened.enter_context(closing(Session(model, device="cpu", keep_engine=True)))

            base = session(self._reference.model)
            sessions = {layers: session(model) for layers, model in self._models.items()}
            for turn in range(TIMED_ROUNDS + 1):
                full = _seconds(base, samples)
                for layers, one in sessions.items():
                    taken = _seconds(one, samples) / full
                    if turn:  # the first round opens the engines
                        seconds[layers].append(taken)
        ratios = {layers: round(statistics.median(found), 3) for layers, found in seconds.items()}
        self._tried = [replace(trial, time=ratios[trial.float_layers]) for trial in self._tried]

    def _step(self) -> None:
        self._done += 1
        self._progress(self._done, self._steps)


def best_of(tried: Sequence[Trial]) -> Trial:
    """Return the fastest of the forms that are hardly worse than the best; all must have been timed."""
    least = min(trial.error for trial in tried)
    bound = max(SLIGHTLY_WORSE * least, least + SLIGHT_SHARE)
    good = [trial for trial in tried if trial.error <= bound]
    return min(good, key=lambda trial: (trial.time or 0.0, trial.error))


def _possible(network: Network) -> list[FloatLayers]:
    """Return the choices of FP32 layers that leave something to quantise, the smallest first."""
    weighted = {node.name for node in network.model.graph if node.op_type in WEIGHTED and node.op_type not in IN_FLOAT}
    found: list[FloatLayers] = [
        which for which in FLOAT_LAYERS if weighted - set(layers_in_float(network, which)) or which == "none"
    ]
    if not weighted:
        raise ModelError(f"{network.name} has no convolution that could be computed in int8; leave --precision out")
    return found


def compared(first: Sequence[NDArray[Any]], second: Sequence[NDArray[Any]], classes: int) -> Accuracy:
    """Compare the labels of both, image by image."""
    pixels = different = 0
    common, either = np.zeros(classes, np.int64), np.zeros(classes, np.int64)
    for one, other in zip(first, second, strict=True):
        pixels += one.size
        different += int(np.count_nonzero(one != other))
        for label in range(classes):
            common[label] += np.count_nonzero((one == label) & (other == label))
            either[label] += np.count_nonzero((one == label) | (other == label))
    iou = tuple(round(float(a / b), 6) if b else None for a, b in zip(common, either, strict=True))
    return Accuracy(pixels=pixels, different_labels=different, iou=iou)


def _results(model: DeployedModel, crops: Sequence[Crop]) -> list[NDArray[Any]]:
    """Run one pass over each crop."""
    found = []
    with closing(Session(model, device="cpu", keep_engine=True)) as session:
        for crop in crops:
            sink = ArraySink()
            session.segment(ArraySource(crop.samples), sink, plan="whole")
            found.append(sink.result)
    return found


def _seconds(session: Session, samples: NDArray[Any]) -> float:
    """Measure the time of inference alone."""
    return session.segment(ArraySource(samples), ArraySink(), plan="whole").seconds.infer


def _relative_error(first: Sequence[NDArray[Any]], second: Sequence[NDArray[Any]]) -> float:
    """Return the root mean square of the differences, divided by that of the values."""
    apart = sum(float(np.square(a.astype(np.float64) - b).sum()) for a, b in zip(first, second, strict=True))
    values = sum(float(np.square(a.astype(np.float64)).sum()) for a in first)
    return float(np.sqrt(apart / values)) if values else float(apart > 0)
