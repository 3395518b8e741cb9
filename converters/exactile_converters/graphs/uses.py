"""A graph as the memory model sees it: which node reads and writes which tensor, and how large tensors are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from exactile.contract import BytesForShape

NOTHING = BytesForShape(0.0)


def plus(left: BytesForShape, right: BytesForShape) -> BytesForShape:
    """Return the sum of two sizes."""
    return BytesForShape(
        left.area + right.area, left.row + right.row, left.column + right.column, left.constant + right.constant
    )


def times(size: BytesForShape, factor: float) -> BytesForShape:
    """Return ``size`` times ``factor``."""
    return BytesForShape(size.area * factor, size.row * factor, size.column * factor, size.constant * factor)


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorUse:
    """A tensor of the graph that depends on the image.

    ``bytes`` is its size in the plain layout as a function of the graph input's height and width, ``item_bytes`` the
    size of an element. ``channels`` is the length of axis 1 of a float32 ``(N, C, H, W)`` tensor, 0 for every other
    tensor.
    """

    name: str
    bytes: BytesForShape
    channels: int = 0
    item_bytes: int = 1

    def __post_init__(self) -> None:
        if self.channels < 0:
            raise ValueError(f"tensor {self.name!r} cannot have {self.channels} channels")

    @property
    def elements(self) -> BytesForShape:
        return times(self.bytes, 1 / self.item_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeUse:
    """A node that computes something from the image.

    ``inputs`` and ``outputs`` name tensors; an input without a TensorUse is a constant and costs nothing here.
    ``weight_shape`` is the shape of a (transposed) convolution's filter, empty when it is not constant. ``attributes``
    are the ONNX attributes of the node; ``group``, ``axis``, ``perm``, ``mode``, ``coordinate_transformation_mode`` and
    ``nearest_mode`` are read, strings as ``str``, lists as tuples. ``scratch`` is memory that the node takes while it
    runs, for operators without a special rule.
    """

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weight_shape: tuple[int, ...] = ()
    attributes: Mapping[str, object] = field(default_factory=dict)
    scratch: BytesForShape = NOTHING

    def __post_init__(self) -> None:
        if not self.outputs:
            raise ValueError(f"a {self.op} node without outputs")

    def whole_number(self, attribute: str, default: int) -> int:
        value = self.attributes.get(attribute, default)
        if not isinstance(value, int):
            raise TypeError(f"attribute {attribute} of a {self.op} node is {value!r}, not a whole number")
        return value
