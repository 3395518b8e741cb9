"""INT8 by pairs of QuantizeLinear and DequantizeLinear, with ranges that ONNX Runtime's calibration finds.

Weights have a scale for each channel, activations one for all. Transposed convolutions stay in floating point: ONNX
Runtime has no integer kernels for them, and pairs around them would only round.
"""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, get_args

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from exactile.errors import ModelError
from exactile_converters.exporters.quiet import quiet
from exactile_converters.networks.network import Network
from exactile_converters.prepare.from_onnx import prepare_network

Calibration = Literal["percentile", "entropy", "minmax"]
FloatLayers = Literal["none", "first", "last", "first and last"]
"""Which layers stay in FP32."""

CALIBRATIONS: tuple[Calibration, ...] = get_args(Calibration)
FLOAT_LAYERS: tuple[FloatLayers, ...] = get_args(FloatLayers)

WEIGHTED = frozenset(("Conv", "ConvTranspose", "Gemm", "MatMul"))
IN_FLOAT = frozenset(("ConvTranspose",))

LONGEST_CALIBRATION_S = 60.0
FEWEST_CROPS = 4
"""This many crops are used however long it takes; others within the time."""

Fed = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Method:
    """How ranges are found; ``percentile`` is the share of values within the range, in per cent."""

    calibration: Calibration
    percentile: float | None = None

    def __str__(self) -> str:
        return self.calibration if self.percentile is None else f"{self.calibration} {self.percentile:g}"


METHODS = (
    Method("minmax"),
    Method("percentile", 99.999),
    Method("percentile", 99.99),
    Method("entropy"),
)


class Quantizer:
    """Makes quantised forms of ``network``, which is not modified, from its results for ``fed``: inputs of its shape.

    A context manager: ranges are found once for each method, by a copy of the network on disk.
    """

    def __init__(self, network: Network, fed: Sequence[Fed]) -> None:
        self._network, self._fed = network, fed
        self._folder = tempfile.TemporaryDirectory(prefix="exactile-")
        self._source = Path(self._folder.name) / "fp32.onnx"
        self._ranges: dict[Method, Any] = {}
        onnx.save(ir.to_proto(network.model), str(self._source))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._folder.cleanup()

    def quantized(self, method: Method, float_layers: FloatLayers = "none") -> Network:
        """Return the quantised form. Raises ModelError."""
        from onnxruntime.quantization import QuantType
        from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
        from onnxruntime.quantization.quant_utils import load_model_with_shape_infer

        def quantize() -> onnx.ModelProto:
            quantizer = QDQQuantizer(
                load_model_with_shape_infer(self._source),
                True,  # a scale for each channel of weights
                False,  # all of 8 bits
                QuantType.QInt8,
                QuantType.QUInt8,
                self._ranges[method],
                [],
                layers_in_float(self._network, float_layers),
                _operators(),
                {},
            )
            quantizer.quantize_model()
            found: onnx.ModelProto = quantizer.model.model
            return found

        self.calibrate(method)
        made = _asked_of_library(quantize)
        return prepare_network(made, name=self._network.name, output_name=self._network.result.name)

    def calibrate(self, method: Method) -> None:
        """Find the ranges, unless they are known. Raises ModelError."""
        if method not in self._ranges:
            self._ranges[method] = _asked_of_library(lambda: self._measured(method))

    def _measured(self, method: Method) -> Any:
        """Measure crop by crop: the library would keep all maps of all crops at once."""
        from onnxruntime.quantization import CalibrationMethod
        from onnxruntime.quantization.calibrate import create_calibrator

        methods = {
            "percentile": CalibrationMethod.Percentile,
            "entropy": CalibrationMethod.Entropy,
            "minmax": CalibrationMethod.MinMax,
        }
        options = {"symmetric": False} | ({} if method.percentile is None else {"percentile": method.percentile})
        calibrator = create_calibrator(
            self._source,
            _operators(),
            str(Path(self._folder.name) / "augmented.onnx"),
            methods[method.calibration],
            extra_options=options,
        )
        began = time.monotonic()
        for count, pixels in enumerate(self._fed):
            if count >= FEWEST_CROPS and time.monotonic() - began > LONGEST_CALIBRATION_S:
                break
            calibrator.collect_data(_Reader(self._network.image.name or "", [pixels]))
        return calibrator.compute_data()


def layers_in_float(network: Network, which: FloatLayers) -> list[str]:
    """Return the names of nodes that stay in float: a first layer and all before it, a last one and all after it."""
    nodes = list(network.model.graph)
    names: list[str] = []
    if which in ("first", "first and last"):
        names += _outer(nodes, lambda node: node.predecessors())
    if which in ("last", "first and last"):
        names += _outer(list(reversed(nodes)), lambda node: node.successors())
    return list(dict.fromkeys(names))


def _outer(nodes: Sequence[ir.Node], beyond: Callable[[ir.Node], Iterable[ir.Node]]) -> list[str]:
    """Return the nodes, in the order of ``nodes``, that no layer with weights precedes, and the first such layers."""
    inside: set[ir.Node] = set()
    found = []
    for node in nodes:
        others = set(beyond(node))
        if others & inside:
            inside.add(node)
            continue
        found.append(node.name or "")
        if node.op_type in WEIGHTED:
            inside.add(node)
    return found


def _operators() -> list[str]:
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    return sorted((QDQRegistry.keys() | QLinearOpsRegistry.keys()) - IN_FLOAT)


def _asked_of_library(work: Callable[[], Any]) -> Any:
    """Return the result of ``work``, without what the library prints. Raises ModelError."""
    with quiet(), redirect_stdout(io.StringIO()):
        try:
            return work()
        except Exception as error:
            raise ModelError(f"quantisation to int8 failed: {error}") from error


class _Reader:
    """Gives ONNX Runtime's calibration its inputs one by one."""

    def __init__(self, name: str, fed: Sequence[Fed]) -> None:
        self._name, self._fed = name, iter(fed)

    def get_next(self) -> dict[str, Fed] | None:
        pixels = next(self._fed, None)
        return {self._name: pixels} if pixels is not None else None
