"""Fewer bits inside the network: FP16 by typed ONNX, INT8 by Q/DQ pairs calibrated on the user's images.

Precision changes values, never seams: tiles, strips and one pass of the changed network agree as those of the original
do. What the change does to labels is measured on the calibration images and written into the contract.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from exactile.contract import DeployedModel
from exactile.errors import ChannelError, ModelError, OptionError
from exactile.geometry import Box, Span
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.alpha import leave_out_alpha
from exactile.sources.array import ArraySource
from exactile.sources.protocol import ReadPlan, Source
from exactile.statistics import measure
from exactile_converters.from_onnx import Network, prepare_network
from exactile_converters.graphs.io import Normalization
from exactile_converters.quiet import quiet

Precision = Literal["fp32", "fp16", "int8"]
Calibration = Literal["percentile", "entropy", "minmax"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
CALIBRATIONS: tuple[Calibration, ...] = get_args(Calibration)

INTEGER = {"ConvInteger", "MatMulInteger"}
CROP_PX = 256
MOST_CROPS = 16
"""Crops for calibration and comparison, spread over all images."""

Array = NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """Labels of the changed network against those of the FP32 one; ``iou`` by class, None where it never occurs."""

    pixels: int
    different_labels: int
    iou: tuple[float | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Crop:
    """Samples as stored, (H, W, C), and what the network sees, float32 in the same order."""

    samples: Array
    pixels: NDArray[np.float32]


def crops_of(sources: Sequence[Source], network: Network, normalization: Normalization) -> list[Crop]:
    """Up to ``MOST_CROPS`` crops of one size, from all images. Raises OptionError, ChannelError."""
    if not sources:
        raise OptionError("int8 needs images like those to come, to calibrate on: --calibrate IMAGE (again for more)")
    geometry = network.trace().geometry
    if geometry is None:
        raise ModelError(f"{network.name} cannot be tiled exactly")
    size = geometry.y.accepted_size(CROP_PX), geometry.x.accepted_size(CROP_PX)
    found: list[Crop] = []
    each = max(1, MOST_CROPS // len(sources))
    for source in sources[:MOST_CROPS]:
        leave_out_alpha(source, network.channels)
        if source.channels != network.channels:
            raise ChannelError(
                f"a calibration image has {source.channels} channel(s), the model takes {network.channels}"
            )
        if source.height < size[0] or source.width < size[1]:
            raise OptionError(
                f"a calibration image has {source.height} x {source.width} pixels; {size[0]} x {size[1]} are needed"
            )
        offset, scale = _normalizers(source, normalization)
        for box in _boxes(source, size, each):
            source.prepare(ReadPlan(rows=[box.y], columns=[box.x]), cache_bytes=0)
            samples = np.empty((*box.shape, source.channels), source.dtype)
            source.read(box, samples)
            found.append(Crop(samples=samples, pixels=((samples - offset) / scale).astype(np.float32)))
    return found


def at_precision(network: Network, precision: Precision, crops: Sequence[Crop], method: Calibration) -> Network:
    """A network of fewer bits; ``network`` is left as it is. Raises OptionError where it computes with integers."""
    used = {node.op_type for node in network.model.graph}
    integer = sorted(op for op in used if op.startswith("QLinear") or op in INTEGER)
    if precision != "fp32" and integer:
        raise OptionError(
            f"{network.name} is quantised ({', '.join(integer)}): convert it with --precision fp32, which leaves it as "
            f"it is, or give the network before it was quantised for {precision}"
        )
    proto = ir.to_proto(network.model)
    name, output = network.name, network.result.name
    if precision == "fp16":
        return prepare_network(_to_float16(proto), name=name, output_name=output)
    if precision == "int8":
        fed = [_as_fed(crop.pixels, network) for crop in crops]
        return prepare_network(_quantized(proto, network.image.name or "", fed, method), name=name, output_name=output)
    return prepare_network(proto, name=name, output_name=output)


def compare_labels(reference: DeployedModel, changed: DeployedModel, crops: Sequence[Crop]) -> Accuracy:
    """Labels of both, over all crops."""
    classes = max(2, reference.contract.result.classes)
    pixels = different = 0
    common, either = np.zeros(classes, np.int64), np.zeros(classes, np.int64)
    sessions = Session(reference), Session(changed)
    for crop in crops:
        one, other = (_labels(session, crop.samples) for session in sessions)
        pixels += one.size
        different += int(np.count_nonzero(one != other))
        for label in range(classes):
            common[label] += np.count_nonzero((one == label) & (other == label))
            either[label] += np.count_nonzero((one == label) | (other == label))
    iou = tuple(round(float(a / b), 6) if b else None for a, b in zip(common, either, strict=True))
    return Accuracy(pixels=pixels, different_labels=different, iou=iou)


def _labels(session: Session, samples: Array) -> Array:
    sink = ArraySink()
    session.segment(ArraySource(samples), sink, plan="whole")
    return sink.result


def _normalizers(source: Source, normalization: Normalization) -> tuple[Array, Array]:
    """``(sample - offset) / scale`` of each channel, as float64."""
    if normalization.statistics is not None:
        found = measure(source, normalization.statistics)
        return found.offset, found.scale
    divisor, mean, std = (np.array(values) for values in (normalization.scale, normalization.mean, normalization.std))
    return divisor * mean, divisor * std


def _boxes(source: Source, size: tuple[int, int], count: int) -> Iterator[Box]:
    """``count`` crops along the image's diagonal and across it."""
    for index in range(count):
        share = (index + 0.5) / count
        y = int((source.height - size[0]) * share)
        x = int((source.width - size[1]) * (share * 2.618 % 1))
        yield Box(Span(y, y + size[0]), Span(x, x + size[1]))


def _as_fed(pixels: NDArray[np.float32], network: Network) -> NDArray[np.float32]:
    order = {"y": 0, "x": 1, "c": 2}
    arranged = pixels.transpose([order[label] for label in network.labels if label != "n"])
    return np.ascontiguousarray(np.expand_dims(arranged, network.labels.index("n")))


def _to_float16(proto: onnx.ModelProto) -> onnx.ModelProto:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with quiet():
        converted: onnx.ModelProto = convert_float_to_float16(proto, keep_io_types=True, disable_shape_infer=True)
    return converted


class _Reader:
    """What ONNX Runtime's calibration asks for its inputs one by one."""

    def __init__(self, name: str, fed: Sequence[NDArray[np.float32]]) -> None:
        self._name, self._fed = name, iter(fed)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        pixels = next(self._fed, None)
        return {self._name: pixels} if pixels is not None else None


def _quantized(
    proto: onnx.ModelProto, image: str, fed: Sequence[NDArray[np.float32]], method: Calibration
) -> onnx.ModelProto:
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    methods = {
        "percentile": CalibrationMethod.Percentile,
        "entropy": CalibrationMethod.Entropy,
        "minmax": CalibrationMethod.MinMax,
    }
    silent = redirect_stdout(io.StringIO())  # its progress is printed
    with tempfile.TemporaryDirectory(prefix="exactile-") as folder, quiet(), silent:
        source, target = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        onnx.save(proto, str(source))
        try:
            quantize_static(
                str(source),
                str(target),
                _Reader(image, fed),
                quant_format=QuantFormat.QDQ,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                per_channel=True,
                reduce_range=False,
                calibrate_method=methods[method],
            )
        except Exception as error:
            raise ModelError(f"quantisation to int8 failed: {error}") from error
        return onnx.load(str(target))
