"""Check that a bundle's result means what the network's own output means, by a second computation in numpy.

The network as it came from its framework runs in plain ONNX Runtime over the sample image; numpy turns its output into
labels or probabilities, without the graph that ``graphs.result_out`` appends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

from exactile.contract import ResultOutput
from exactile.errors import ModelError
from exactile_converters.device.stored import stored
from exactile_converters.networks.network import Network
from exactile_converters.networks.normalization import Normalization

TOLERATED = 1e-3
"""Largest share of labels that may differ, and largest difference of maps relative to the largest value."""

TIE = 1e-4
"""Probabilities, or scores relative to the largest, that differ by less are ties."""

Array = NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnOutput:
    """The network before its input and output were wrapped; ``labels`` are the axes of its output."""

    proto: onnx.ModelProto
    image: str
    result: str
    image_axes: Sequence[str]
    result_axes: Sequence[str]

    @classmethod
    def of(cls, network: Network, result_axes: Sequence[str]) -> OwnOutput:
        """Make it from a copy: ``network`` may be consumed later."""
        proto = ir.to_proto(network.model)
        _free_sizes(proto, network.image.name or "", network.labels)
        return cls(
            proto=proto,
            image=network.image.name or "",
            result=network.result.name or "",
            image_axes=network.labels,
            result_axes=result_axes,
        )

    def run(self, image: Array, normalization: Normalization) -> Array:
        """Return (C, H, W) for ``image`` (H, W, C) as stored."""
        kind = next(value.type.tensor_type.elem_type for value in self.proto.graph.input if value.name == self.image)
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind))
        samples = image
        if dtype.kind == "f":
            scale, mean, std = (np.array(part, np.float32) for part in (
                normalization.scale, normalization.mean, normalization.std))  # fmt: skip
            samples = (image.astype(np.float32) / scale - mean) / std
        order = {"n": 0, "y": 1, "x": 2, "c": 3}
        fed = samples[None].transpose([order[axis] for axis in self.image_axes]).astype(dtype)
        options = ort.SessionOptions()
        options.log_severity_level = 4
        with stored(self.proto) as model:
            given = model if isinstance(model, bytes) else str(model)
            session = ort.InferenceSession(given, options, providers=["CPUExecutionProvider"])
            (found,) = session.run([self.result], {self.image: np.ascontiguousarray(fed)})
        return _channels_first(found, self.result_axes)


def _free_sizes(proto: onnx.ModelProto, image: str, axes: Sequence[str]) -> None:
    """Free height and width, which the export fixed and the network no longer needs."""
    for value in proto.graph.input:
        if value.name == image:
            for dim, axis in zip(value.type.tensor_type.shape.dim, axes, strict=True):
                if axis in ("y", "x"):
                    dim.dim_param = f"{image}_{axis}"
    del proto.graph.value_info[:]
    for value in proto.graph.output:
        value.type.tensor_type.ClearField("shape")


def check_written(own: Array, written: Array, result: ResultOutput, name: str) -> tuple[str, ...]:
    """Return notes on ``written``, the result, compared with ``own``, the network's (C, H, W) output.

    Raises ModelError where it is not what ``result`` says.
    """
    if result.kind == "raw" or not np.isfinite(own).all():
        wrong = 0.0
    elif result.kind == "probabilities":
        expected = _probabilities(own, result.activation)
        step = 1 / 255 if written.dtype == np.uint8 else 0.0
        shown = written / 255 if written.dtype == np.uint8 else written.astype(np.float64)
        wrong = float(np.abs(shown - expected).max()) - step
    else:
        wrong = _wrong_labels(own, written, result)
    if wrong > TOLERATED:
        raise ModelError(
            f"{name}: the {result.kind} that would be written are not those of the network's own output ({wrong:.3%} "
            "off); please report this model, and use --output raw meanwhile"
        )
    scored = result.activation == "sigmoid" and not result.doubt
    if scored and own.dtype.kind == "f" and own.size and own.min() >= 0 and own.max() <= 1:
        note = (
            "on the sample image all scores lie within 0 to 1, as probabilities do; if they are such, convert with "
            "--activation none"
        )
        return (note,)
    return ()


def _wrong_labels(own: Array, written: Array, result: ResultOutput) -> float:
    """Return the share of labels that differ from those of ``own``, without ties."""
    if not result.activation:
        return float(np.mean(own[0].astype(np.int64) != written))
    if result.kind == "labels" and len(own) > 1:
        largest = np.sort(own.astype(np.float64), axis=0)
        tied = largest[-1] - largest[-2] < TIE * max(1e-6, float(np.abs(own).max()))
        return float(np.mean((own.argmax(0) != written) & ~tied))
    off = _probabilities(own, result.activation) - (result.threshold or 0.5)
    expected = off > 0 if written.ndim == 3 else off[0] > 0
    tied = np.abs(off if written.ndim == 3 else off[0]) < TIE
    return float(np.mean((expected != written) & ~tied))


def _probabilities(own: Array, activation: str) -> Array:
    values = own.astype(np.float64)
    match activation:
        case "sigmoid":
            return np.asarray(0.5 * (1 + np.tanh(values / 2)))
        case "softmax":
            raised = np.exp(values - values.max(0))
            return np.asarray(raised / raised.sum(0))
        case "exp":
            return np.asarray(np.exp(values))
    return values


def _channels_first(found: Array, axes: Sequence[str]) -> Array:
    kept = [axis for axis in axes if axis != "n"]
    values = found.reshape([size for size, axis in zip(found.shape, axes, strict=True) if axis != "n"])
    if "c" not in kept:
        values, kept = values[None], ["c", *kept]
    return np.asarray(values.transpose([kept.index(axis) for axis in ("c", "y", "x")]))
