"""Reduced precision inside the network: FP16 by typed ONNX, INT8 by Q/DQ pairs calibrated on the user's images.

Precision changes values, never seams: tiles, strips and one pass of the changed network agree as those of the original
do. The effect of the change on labels is measured and written into the contract.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import onnx
import onnx_ir as ir

from exactile.errors import OptionError
from exactile_converters.exporters.quiet import quiet
from exactile_converters.networks.network import Network
from exactile_converters.prepare.from_onnx import prepare_network
from exactile_converters.reduced_precision.calibration_crops import Crop, as_fed
from exactile_converters.reduced_precision.quantize import METHODS, Calibration, FloatLayers, Quantizer

Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

INTEGER = {"ConvInteger", "MatMulInteger"}


def refuse_integers(network: Network, precision: Precision) -> None:
    """Raise OptionError if the network already computes with integers."""
    used = {node.op_type for node in network.model.graph}
    integer = sorted(op for op in used if op.startswith("QLinear") or op in INTEGER)
    if precision != "fp32" and integer:
        raise OptionError(
            f"{network.name} is quantised ({', '.join(integer)}): convert it with --precision fp32, which leaves it as "
            f"it is, or give the network before it was quantised for {precision}"
        )


def at_precision(
    network: Network,
    precision: Precision,
    crops: Sequence[Crop],
    calibration: Calibration,
    float_layers: FloatLayers = "none",
) -> Network:
    """Return a network of reduced precision; ``network`` is not modified. Raises OptionError if it uses integers."""
    refuse_integers(network, precision)
    if precision == "fp16":
        return in_half_precision(network)
    if precision == "int8":
        method = next(method for method in METHODS if method.calibration == calibration)
        with Quantizer(network, [as_fed(crop.pixels, network) for crop in crops]) as quantizer:
            return quantizer.quantized(method, float_layers)
    return network.copy()


def in_half_precision(network: Network) -> Network:
    """Return ``network``, which is not modified, with float16 inside; its input and output stay float32."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with quiet():
        made: onnx.ModelProto = convert_float_to_float16(
            ir.to_proto(network.model), keep_io_types=True, disable_shape_infer=True
        )
    return prepare_network(made, name=network.name, output_name=network.result.name)
