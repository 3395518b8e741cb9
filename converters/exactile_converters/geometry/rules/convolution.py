"""Convolution and transposed convolution."""

from __future__ import annotations

from exactile_converters.geometry.node_view import Label, Labels, NodeView, Operand, is_spatial
from exactile_converters.geometry.obstacle import ObstacleError
from exactile_converters.geometry.reach import Reach, TransposedWindow, Window
from exactile_converters.geometry.registry import Flow, Transfer, rule
from exactile_converters.geometry.sliding import Kernel, output_padding, output_shape


def spatial_labels(labels: Labels) -> tuple[Label, ...]:
    """Return the labels of the axes a kernel slides over: all but the first two, which must be batch and channels."""
    if len(labels) < 3 or any(is_spatial(label) for label in labels[:2]):
        raise ObstacleError(
            f"its input's axes are {labels} where batch, channels and then space are expected",
            "Transpose the feature map so that channels come second",
        )
    return labels[2:]


def pad_before(kernel: Kernel, axis: int, operand: Operand) -> int:
    """Return the padding before the first pixel. SAME padding depends on the size, but all accepted sizes agree."""
    found = {kernel.placed(axis, size).before for size in operand.sizes(axis + 2)}
    if len(found) != 1:
        raise ObstacleError("its SAME padding varies with the image size", "Export with explicit padding")
    return found.pop()


def windows(node: NodeView, kernel: Kernel) -> Transfer:
    """Return the transfer of a sliding window, for convolution and pooling."""
    operand, labels = node.feature()
    reach: dict[Label, Reach] = {
        label: Window(
            kernel=kernel.sizes[axis],
            stride=kernel.strides[axis],
            dilation=kernel.dilations[axis],
            pad=pad_before(kernel, axis, operand),
        )
        for axis, label in enumerate(spatial_labels(labels))
    }
    return Transfer(labels=(labels,) * len(node.node.outputs), flows=(Flow(operand=0, reach=reach),))


@rule("Conv")
def convolution(node: NodeView) -> Transfer:
    """Handle convolution with any stride, dilation, group, padding and automatic padding."""
    return windows(node, _weight_kernel(node))


@rule("ConvTranspose")
def transposed_convolution(node: NodeView) -> Transfer:
    """Handle transposed convolution with any kernel, stride, dilation, padding and output padding."""
    kernel = _weight_kernel(node)
    operand, labels = node.feature()
    reach: dict[Label, Reach] = {
        label: TransposedWindow(
            kernel=kernel.sizes[axis],
            stride=kernel.strides[axis],
            dilation=kernel.dilations[axis],
            pad=_cropped_before(node, kernel, axis, operand),
        )
        for axis, label in enumerate(spatial_labels(labels))
    }
    return Transfer(labels=(labels,), flows=(Flow(operand=0, reach=reach),))


def _cropped_before(node: NodeView, kernel: Kernel, axis: int, operand: Operand) -> int:
    """Return the rows cropped before the first output."""
    axes = len(kernel.sizes)
    extra, wanted = output_padding(node.node, axis, axes), output_shape(node.node, axis, axes)
    found = {kernel.transposed(axis, size, extra, wanted).before for size in operand.sizes(axis + 2)}
    if len(found) != 1:
        raise ObstacleError("its output shape is fixed for one image size", "Export with dynamic height and width")
    return found.pop()


def _weight_kernel(node: NodeView) -> Kernel:
    node.only_first_is_feature(("weight", "bias"))
    weight = node.operand(1)
    if weight is None or weight.small.shape is None:
        raise ObstacleError("its weight has no known shape", "Export with constant weights")
    return Kernel.of(node.node, weight.small.shape[2:])
