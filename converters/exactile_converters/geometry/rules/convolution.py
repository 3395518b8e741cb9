"""Convolution and transposed convolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from exactile_converters.geometry.node_view import Label, Labels, NodeView, Operand, is_spatial
from exactile_converters.geometry.obstacle import ObstacleError
from exactile_converters.geometry.reach import Reach, TransposedWindow, Window
from exactile_converters.geometry.registry import Flow, Transfer, rule


@dataclass(frozen=True, slots=True)
class Kernel:
    """Attributes that Conv, ConvTranspose and pooling share, one entry a spatial axis."""

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    auto_pad: str

    @classmethod
    def of(cls, node: NodeView, sizes: Sequence[int]) -> Kernel:
        axes = len(sizes)
        return cls(
            tuple(sizes),
            node.integers("strides", [1] * axes),
            node.integers("dilations", [1] * axes),
            node.integers("pads", [0] * 2 * axes),
            node.text("auto_pad", "NOTSET"),
        )

    def extent(self, axis: int) -> int:
        """Input pixels from the first tap to the last."""
        return (self.sizes[axis] - 1) * self.dilations[axis] + 1


def spatial_labels(labels: Labels) -> tuple[Label, ...]:
    """The labels of the axes a kernel slides over: all but the first two, which must be batch and channels."""
    if len(labels) < 3 or any(is_spatial(label) for label in labels[:2]):
        raise ObstacleError(
            f"its input's axes are {labels} where batch, channels and then space are expected",
            "Transpose the feature map so that channels come second",
        )
    return labels[2:]


def pad_before(kernel: Kernel, axis: int, operand: Operand, result: Operand) -> int:
    """Padding before the first pixel. SAME padding depends on the size, but alike for all accepted sizes."""
    match kernel.auto_pad:
        case "NOTSET" | "":
            return kernel.pads[axis]
        case "VALID":
            return 0
    totals = {
        max(0, (out - 1) * kernel.strides[axis] + kernel.extent(axis) - size)
        for size, out in zip(operand.sizes(axis + 2), result.sizes(axis + 2), strict=True)
    }
    if len(totals) != 1:
        raise ObstacleError("its SAME padding varies with the image size", "Export with explicit padding")
    total = totals.pop()
    return total // 2 if kernel.auto_pad == "SAME_UPPER" else total - total // 2


def windows(node: NodeView, kernel: Kernel) -> Transfer:
    """The transfer of a sliding window, for convolution and pooling alike."""
    operand, labels = node.feature()
    result = node.result()
    reach: dict[Label, Reach] = {
        label: Window(
            kernel=kernel.sizes[axis],
            stride=kernel.strides[axis],
            dilation=kernel.dilations[axis],
            pad=pad_before(kernel, axis, operand, result),
        )
        for axis, label in enumerate(spatial_labels(labels))
    }
    return Transfer(labels=(labels,) * len(node.node.outputs), flows=(Flow(operand=0, reach=reach),))


@rule("Conv")
def convolution(node: NodeView) -> Transfer:
    """Any stride, dilation, group, padding and automatic padding."""
    return windows(node, _weight_kernel(node))


@rule("ConvTranspose")
def transposed_convolution(node: NodeView) -> Transfer:
    """Any kernel, stride, dilation, padding and output padding."""
    kernel = _weight_kernel(node)
    operand, labels = node.feature()
    result = node.result()
    reach: dict[Label, Reach] = {
        label: TransposedWindow(
            kernel=kernel.sizes[axis],
            stride=kernel.strides[axis],
            dilation=kernel.dilations[axis],
            pad=_cropped_before(node, kernel, axis, operand, result),
        )
        for axis, label in enumerate(spatial_labels(labels))
    }
    return Transfer(labels=(labels,), flows=(Flow(operand=0, reach=reach),))


def _cropped_before(node: NodeView, kernel: Kernel, axis: int, operand: Operand, result: Operand) -> int:
    """Rows cropped before the first output, by the ONNX ConvTranspose operator's formulas."""
    if kernel.auto_pad in ("NOTSET", "") and not node.has("output_shape"):
        return kernel.pads[axis]
    if kernel.auto_pad == "VALID" and not node.has("output_shape"):
        return 0
    extra = node.integers("output_padding", [0] * len(kernel.sizes))[axis]
    totals = {
        kernel.strides[axis] * (size - 1) + extra + kernel.extent(axis) - out
        for size, out in zip(operand.sizes(axis + 2), result.sizes(axis + 2), strict=True)
    }
    if len(totals) != 1:
        raise ObstacleError("its output shape is fixed for one image size", "Export with dynamic height and width")
    total = max(0, totals.pop())
    return total // 2 if kernel.auto_pad == "SAME_UPPER" else total - total // 2


def _weight_kernel(node: NodeView) -> Kernel:
    node.only_first_is_feature(("weight", "bias"))
    weight = node.operand(1)
    if weight is None or weight.small.shape is None:
        raise ObstacleError("its weight has no known shape", "Export with constant weights")
    return Kernel.of(node, weight.small.shape[2:])
