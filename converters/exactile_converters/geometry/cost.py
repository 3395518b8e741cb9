"""Count what a network computes: multiply-accumulates for each image pixel, and parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import prod
from typing import Protocol

import onnx_ir as ir

from exactile_converters.geometry.feature_maps import FeatureMap
from exactile_converters.geometry.node_view import SPATIAL
from exactile_converters.geometry.probe import Probe

Shape = tuple[Fraction, ...]

WEIGHT_OPERAND = {"Conv": 1, "ConvInteger": 1, "QLinearConv": 3, "ConvTranspose": 1}
PRODUCTS = {"MatMul", "MatMulInteger", "QLinearMatMul", "Gemm"}
NO_PARAMETERS = {"Resize", "Upsample", "Pad", "Slice", "Reshape", "Expand", "Tile", "Clip", "QuantizeLinear"}
RUNNING_STATISTICS = {"BatchNormalization": (3, 4)}
SMALLEST_PARAMETER_RANK = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """``mac_per_pixel`` counts Conv, ConvTranspose, MatMul, Gemm and their integer forms, for each image pixel.

    For a tileable network it is exact inside the image, away from the borders, and ``at`` is None; else it is that of
    one pass over an image of ``at`` = (height, width) pixels. It is None where the graph does not determine it.
    ``parameters`` counts the trained weights, without running statistics, sizes and scales.
    """

    mac_per_pixel: Fraction | None
    parameters: int
    at: tuple[int, int] | None = None


class Sizes(Protocol):
    """The elements of a value along each axis, for each image pixel or in total."""

    def __call__(self, value: ir.Value | None) -> Shape | None:
        """Return the shape; None where it is unknown."""


def cost_per_pixel(nodes: tuple[ir.Node, ...], features: Mapping[str, FeatureMap]) -> Cost:
    """Return the cost of a traced network: along height and width, a feature map has ``scale`` elements a pixel."""

    def sizes(value: ir.Value | None) -> Shape | None:
        feature = features.get(value.name or "") if value is not None else None
        if feature is None:
            return _constant_shape(value)
        return tuple(
            Fraction(prod(feature.scale[axis] for axis in SPATIAL if axis in label))  # flattened space is one axis
            if set(label) <= set(SPATIAL)
            else Fraction(size)
            for label, size in zip(feature.labels, feature.shape, strict=True)
        )

    computed = [node for node in nodes if any(value.name in features for value in node.outputs)]
    return Cost(mac_per_pixel=_sum(computed, sizes), parameters=count_parameters(nodes))


def cost_at(
    model: ir.Model, nodes: tuple[ir.Node, ...], image: str, shape: tuple[int, ...], at: tuple[int, int]
) -> Cost:
    """Return the cost of one pass over an image of ``at`` = (height, width), which gives an input of ``shape``."""
    probe = Probe(model, image, shape)

    def sizes(value: ir.Value | None) -> Shape | None:
        fact = probe.of(value)
        return tuple(map(Fraction, fact.shape)) if fact is not None and fact.shape is not None else None

    total = _sum(nodes, sizes)
    return Cost(
        mac_per_pixel=total / prod(at) if total is not None else None, parameters=count_parameters(nodes), at=at
    )


def count_parameters(nodes: tuple[ir.Node, ...]) -> int:
    """Count the elements of the constants that ``nodes`` compute with, each constant once."""
    found: dict[str, int] = {}
    for node in nodes:
        if node.op_type in NO_PARAMETERS:
            continue
        for index, value in enumerate(node.inputs):
            tensor = value.const_value if value is not None else None
            if value is None or tensor is None or index in RUNNING_STATISTICS.get(node.op_type, ()):
                continue
            learned = tensor.dtype.is_floating_point() or (tensor.dtype.bitwidth <= 8 and "Linear" in node.op_type)
            if learned and len(tensor.shape) >= SMALLEST_PARAMETER_RANK:
                found[value.name or ""] = tensor.size
    return sum(found.values())


def _sum(nodes: list[ir.Node] | tuple[ir.Node, ...], sizes: Sizes) -> Fraction | None:
    total = Fraction(0)
    for node in nodes:
        if node.op_type in WEIGHT_OPERAND:
            weight = sizes(node.inputs[WEIGHT_OPERAND[node.op_type]])
            # Every output pixel of a convolution reads the whole kernel; of a transposed one, every input pixel does.
            pixels = sizes(node.inputs[0] if node.op_type == "ConvTranspose" else node.outputs[0])
            here = prod(weight) * prod(pixels[2:]) * pixels[0] if weight is not None and pixels is not None else None
        elif node.op_type in PRODUCTS:
            left, result = sizes(node.inputs[0]), sizes(node.outputs[0])
            inner = 0 if node.op_type == "Gemm" and node.attributes.get_int("transA", 0) == 1 else -1
            here = prod(result) * left[inner] if left is not None and result is not None else None
        elif node.op_type == "Einsum":
            here = _einsum(node, sizes)
        else:
            continue
        if here is None:
            return None
        total += here
    return total


def _einsum(node: ir.Node, sizes: Sizes) -> Fraction | None:
    """Count one multiplication for each combination of indices, for each operand but the first."""
    terms = node.attributes.get_string("equation", "").replace(" ", "").split("->")[0].split(",")
    along: dict[str, Fraction] = {}
    for letters, value in zip(terms, node.inputs, strict=False):
        shape = sizes(value)
        if shape is None or len(shape) != len(letters):
            return None
        along |= dict(zip(letters, shape, strict=True))
    return Fraction(prod(along.values())) * (len(terms) - 1)


def _constant_shape(value: ir.Value | None) -> Shape | None:
    tensor = value.const_value if value is not None else None
    return tuple(Fraction(int(str(size))) for size in tensor.shape) if tensor is not None else None
