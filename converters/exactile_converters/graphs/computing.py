"""Predict the time of operators, in multiply-accumulates of a float32 convolution."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from math import prod

import onnx_ir as ir

from exactile_converters.geometry.cost import cost_per_pixel
from exactile_converters.geometry.feature_maps import FeatureMap
from exactile_converters.geometry.node_view import is_spatial
from exactile_converters.graphs.kernels import ALIASES, FUSED_WITH_CONV

MAC_PER_BYTE = 2.7
"""Multiply-accumulates of a convolution that take as long as reading or writing one byte in a copy.

Measured by benchmarks/carry_placement.py, whose result names the machine; the cost of a convolution itself was its
multiply-accumulates there, whatever it reads and writes.
"""

INTEGERS = frozenset(("QLinearConv", "ConvInteger", "QLinearMatMul", "MatMulInteger"))
INTEGER_MACS = 0.3
"""Time of an 8-bit integer multiply-accumulate relative to float32 (benchmarks/precision.py, 32 features)."""

COPY = 2
"""Bytes moved for each byte copied: one read, one written."""

FREE = ALIASES | {"Unsqueeze", "Shape"}
FOLDED_INTO = frozenset({"Conv", "ConvTranspose"})
ACTIVATED = frozenset({"Conv", "BatchNormalization", "Add", "Sum"})


def mac_per_pixel(nodes: Iterable[ir.Node], maps: Mapping[str, FeatureMap]) -> float:
    """Return what the traced ``nodes`` compute for each pixel of the image."""
    made = [node for node in nodes if any(value.name in maps for value in node.outputs)]
    return sum(node_mac(node, maps) for node in made if not _follows_in_one_kernel(node))


def node_mac(node: ir.Node, maps: Mapping[str, FeatureMap]) -> float:
    """Return what one operator computes for each pixel of the image, or the equivalent of its bytes."""
    if node.op_type in FREE:
        return 0.0
    result = result_of(node, maps)
    macs = float(cost_per_pixel((node,), maps).mac_per_pixel or 0)
    macs *= INTEGER_MACS if node.op_type in INTEGERS else 1.0
    names = {value.name or "" for value in (*node.inputs, *node.outputs) if value is not None}
    moved = sum(float(bytes_per_pixel(maps[name])) for name in names if name in maps) * MAC_PER_BYTE
    if node.op_type == "ConvTranspose":  # its products are written to columns, and summed from there
        return macs + moved + COPY * MAC_PER_BYTE * float(bytes_per_pixel(result))
    return max(macs, moved)


def in_one_kernel(node: ir.Node, maker: ir.Node | None) -> bool:
    """Return whether the kernel of ``maker``, whose result is read only by ``node``, also computes ``node``."""
    if maker is None:
        return False
    if node.op_type == "BatchNormalization":
        return maker.op_type in FOLDED_INTO
    return node.op_type in FUSED_WITH_CONV and maker.op_type in ACTIVATED


def result_of(node: ir.Node, maps: Mapping[str, FeatureMap]) -> FeatureMap:
    """Return the map that it makes."""
    return next(maps[value.name or ""] for value in node.outputs if value.name in maps)


def bytes_per_pixel(feature: FeatureMap) -> Fraction:
    """Return the bytes of a map for each image pixel."""
    others = prod(size for size, label in zip(feature.shape, feature.labels, strict=True) if not is_spatial(label))
    return Fraction(others * ir.DataType(feature.dtype).itemsize) * feature.scale["y"] * feature.scale["x"]


def _follows_in_one_kernel(node: ir.Node) -> bool:
    source = node.inputs[0] if node.inputs else None
    return source is not None and len(source.uses()) == 1 and in_one_kernel(node, source.producer())
