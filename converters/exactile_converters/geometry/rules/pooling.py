"""Pooling over windows, and its inverse."""

from __future__ import annotations

from exactile_converters.geometry.node_view import Label, NodeView, Operand
from exactile_converters.geometry.obstacle import ObstacleError
from exactile_converters.geometry.reach import Blocks, Reach
from exactile_converters.geometry.registry import Flow, Transfer, rule
from exactile_converters.geometry.rules.convolution import spatial_labels, windows
from exactile_converters.geometry.sliding import Kernel


@rule("MaxPool", "AveragePool", "LpPool")
def pooling(node: NodeView) -> Transfer:
    """Pool over windows with any stride, dilation, padding and rounding of the output size."""
    kernel = Kernel.of(node.node, node.integers("kernel_shape", ()))
    _check_sizes(kernel, node.feature()[0])
    return windows(node, kernel)


def _check_sizes(kernel: Kernel, operand: Operand) -> None:
    """Check that ONNX's shape inference and ONNX Runtime can agree about the size."""
    axes = [(axis, size) for axis in range(len(kernel.sizes)) for size in operand.sizes(axis + 2)]
    if max(kernel.dilations) > 1 and any(min(p.before, p.after) < 0 for p in (kernel.placed(*at) for at in axes)):
        raise ObstacleError(
            "its automatic padding of dilated windows crops pixels, and ONNX and ONNX Runtime disagree about its size",
            "Export with explicit padding",
        )
    if any(kernel.drops_last(*at) for at in axes) and any(
        kernel.rounds_up(*at) and not kernel.drops_last(*at) for at in axes
    ):
        raise ObstacleError(
            "its size is rounded up along one axis alone, and ONNX and ONNX Runtime disagree about the other",
            "Export with explicit padding instead of ceil_mode",
        )


@rule("MaxUnpool")
def unpooling(node: NodeView) -> Transfer:
    """Restore values to where MaxPool found them.

    The indices are positions in the pooled tensor of the same tile, so they must come directly from a MaxPool with the
    same non-overlapping windows, and the output must be as large as that MaxPool's input.
    """
    operand, labels = node.feature(0)
    indices = node.node.inputs[1]
    pool = indices.producer() if indices is not None else None
    kernel = Kernel.of(node.node, node.integers("kernel_shape", ()))
    if (
        pool is None
        or pool.op_type != "MaxPool"
        or tuple(pool.attributes.get_ints("kernel_shape", ())) != kernel.sizes
        or tuple(pool.attributes.get_ints("strides", [1] * len(kernel.sizes))) != kernel.strides
        or kernel.sizes != kernel.strides
        or any(kernel.pads)
    ):
        raise ObstacleError(
            "its indices do not come straight from a MaxPool with the same windows",
            "Connect MaxUnpool to its MaxPool, with kernel equal to stride and no padding",
        )
    result = node.result()
    for axis in range(len(kernel.sizes)):
        sizes, grown = operand.sizes(axis + 2), result.sizes(axis + 2)
        if any(made // kernel.strides[axis] != size for made, size in zip(grown, sizes, strict=True)):
            raise ObstacleError("its output is not as large as what was pooled", "Leave out the output_shape input")
    reach: dict[Label, Reach] = {
        label: Blocks(factor=kernel.strides[axis]) for axis, label in enumerate(spatial_labels(labels))
    }
    flows = tuple(Flow(operand=index, reach=reach) for index, _, _ in node.features if index < 2)
    return Transfer(labels=(labels,), flows=flows)
