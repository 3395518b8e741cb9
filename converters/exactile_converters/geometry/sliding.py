"""Sliding windows as ONNX Runtime places them: their padding, and the size of their result.

Where ONNX's shape inference differs, ONNX Runtime counts, since it computes. They differ for pooling that rounds its
size up, for automatic padding of dilated or sparse pooling windows, and for automatic padding of transposed
convolutions. Formulas: ``pool_attributes.h``, ``padding.h`` and ``conv_transpose_attributes.h`` of ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

CONVOLUTIONS = {"Conv": 1, "QLinearConv": 3, "ConvInteger": 1}
"""The operand that holds the weight, by operator."""

POOLS = ("MaxPool", "AveragePool", "LpPool", "QLinearAveragePool")
SAME = ("SAME_UPPER", "SAME_LOWER")
RUNTIME_DOMAIN = "com.microsoft"
"""Domain of ONNX Runtime's own operators, which its optimiser, its quantiser and some exporters write."""

SPACE = 2
"""Dimensions before those over which a kernel slides."""

Shape = tuple[int, ...]


class RefusedError(ValueError):
    """ONNX Runtime refuses such a window."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """Along one axis: pixels added (or cropped, if negative) before and after, and pixels of the result."""

    before: int
    after: int
    made: int


@dataclass(frozen=True, slots=True)
class Kernel:
    """Attributes that Conv, ConvTranspose and pooling share, one entry a spatial axis."""

    op: str
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    auto_pad: str
    ceil: bool

    @classmethod
    def of(cls, node: ir.Node, sizes: Sequence[int]) -> Kernel:
        axes = len(sizes)
        automatic = node.attributes.get_string("auto_pad", "NOTSET") or "NOTSET"
        pads = tuple(node.attributes.get_ints("pads", [0] * 2 * axes)) if automatic == "NOTSET" else (0,) * 2 * axes
        return cls(
            node.op_type,
            tuple(sizes),
            tuple(node.attributes.get_ints("strides", [1] * axes)),
            tuple(node.attributes.get_ints("dilations", [1] * axes)),
            pads,
            automatic,
            bool(node.attributes.get_int("ceil_mode", 0)) and node.op_type in POOLS,
        )

    def extent(self, axis: int) -> int:
        """Return the input pixels from the first tap to the last."""
        return (self.sizes[axis] - 1) * self.dilations[axis] + 1

    def placed(self, axis: int, size: int) -> Placed:
        """Return where windows lie over ``size`` pixels. Raises RefusedError."""
        before, after = self._padding(axis, size)
        if self.op == "MaxPool" and max(self.dilations) == 1 and min(before, after) < 0:
            raise RefusedError(
                f"ONNX Runtime refuses its automatic padding ({before} and {after}) for {size} pixels: its stride is "
                "larger than its kernel"
            )
        stride = self.strides[axis]
        room = size + before + after - self.extent(axis)
        made = (-(-room // stride) if self.ceil else room // stride) + 1
        if self.ceil and (made - 1) * stride >= size + before:
            made -= 1
        return Placed(before=before, after=after, made=made)

    def rounds_up(self, axis: int, size: int) -> bool:
        """Return whether rounding the size up adds a window, by the count of ONNX's shape inference."""
        before, after = self._padding(axis, size)
        return self.ceil and (size + before + after - self.extent(axis)) % self.strides[axis] > 0

    def drops_last(self, axis: int, size: int) -> bool:
        """Return whether ONNX Runtime omits the window of rounding up, because it would begin behind the pixels."""
        placed = self.placed(axis, size)
        room = size + placed.before + placed.after - self.extent(axis)
        return self.rounds_up(axis, size) and placed.made == room // self.strides[axis] + 1

    def _padding(self, axis: int, size: int) -> tuple[int, int]:
        if self.auto_pad not in SAME:
            return self.pads[axis], self.pads[axis + len(self.sizes)]
        stride = self.strides[axis]
        if self.op in CONVOLUTIONS and self.dilations[axis] != 1:
            raise RefusedError("ONNX Runtime has no automatic padding for dilated convolutions")
        total = (-(-size // stride) - 1) * stride + self.sizes[axis] - size
        if self.op in CONVOLUTIONS:
            total = max(0, total)
        before = _towards_zero(total if self.auto_pad == "SAME_UPPER" else total + 1, 2)
        return before, total - before

    def transposed(self, axis: int, size: int, extra: int, wanted: int | None) -> Placed:
        """Return where the windows of a transposed convolution lie: before and after are cropped from their result.

        ``extra`` is its output padding, ``wanted`` its output shape. Raises RefusedError.
        """
        if extra >= self.strides[axis]:
            raise RefusedError(
                f"ONNX Runtime takes an output padding below its stride {self.strides[axis]}, not {extra}"
            )
        full = (size - 1) * self.strides[axis] + extra + self.extent(axis)
        target = wanted if wanted is not None else size * self.strides[axis] if self.auto_pad in SAME else None
        if target is None:
            before, after = self.pads[axis], self.pads[axis + len(self.sizes)]
        else:
            total = max(0, full - target)
            before = total // 2 if self.auto_pad == "SAME_UPPER" else total - total // 2
            after = total - before
        return Placed(before=before, after=after, made=full - before - after if wanted is None else wanted)


def output_padding(node: ir.Node, axis: int, axes: int) -> int:
    """Return the rows or columns that a transposed convolution adds at the end."""
    return int(node.attributes.get_ints("output_padding", [0] * axes)[axis])


def output_shape(node: ir.Node, axis: int, axes: int) -> int | None:
    """Return the output size that a transposed convolution has as an attribute, without batch and channels."""
    given = tuple(node.attributes.get_ints("output_shape", ()))
    return int(given[len(given) - axes + axis]) if given else None


def made_shape(node: ir.Node, shapes: Mapping[int, Shape | None]) -> Shape | None:
    """Return the shape that ONNX Runtime gives a window's result, from its operands'; None for other operators.

    Raises RefusedError.
    """
    image = shapes.get(0)
    if node.domain not in ("", "ai.onnx", RUNTIME_DOMAIN) or image is None or len(image) <= SPACE:
        return None
    axes = len(image) - SPACE
    if node.op_type in POOLS:
        kernel = Kernel.of(node, node.attributes.get_ints("kernel_shape", ()))
        channels = image[1]
    elif node.op_type in CONVOLUTIONS or node.op_type == "ConvTranspose":
        weight = shapes.get(CONVOLUTIONS.get(node.op_type, 1))
        if weight is None or len(weight) != len(image):
            return None
        kernel = Kernel.of(node, weight[SPACE:])
        transposed = node.op_type == "ConvTranspose"
        channels = weight[1] * node.attributes.get_int("group", 1) if transposed else weight[0]
    else:
        return None
    if not len(kernel.sizes) == len(kernel.strides) == len(kernel.dilations) == len(kernel.pads) // 2 == axes:
        return None
    space = image[SPACE:]
    if node.op_type == "ConvTranspose":
        made = [
            kernel.transposed(axis, size, output_padding(node, axis, axes), output_shape(node, axis, axes)).made
            for axis, size in enumerate(space)
        ]
    else:
        made = [kernel.placed(axis, size).made for axis, size in enumerate(space)]
    return (image[0], channels, *made)


def _towards_zero(value: int, divisor: int) -> int:
    return value // divisor if value >= 0 else -(-value // divisor)
