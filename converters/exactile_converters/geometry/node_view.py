"""A node as rules see it: attributes, and each operand at two image sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from exactile_converters.geometry.fact import Fact
from exactile_converters.geometry.obstacle import ObstacleError
from exactile_converters.geometry.probe import without_repeats

Label = Literal["n", "c", "y", "x", "yx"]
"""Meaning of a dimension: batch, channels, rows, columns, or rows and columns flattened into one (row by row)."""

Labels = tuple[Label, ...]
SPATIAL: tuple[Label, Label] = ("y", "x")


def is_spatial(label: Label) -> bool:
    """Return whether ``label`` names rows, columns, or both."""
    return label in ("y", "x", "yx")


def is_whole(over: Sequence[Label]) -> bool:
    """Return whether ``over`` names both rows and columns, in any form."""
    return "yx" in over or {"y", "x"} <= set(over)


def same_places(first: Labels, second: Labels) -> bool:
    """Return whether two lists of axes, aligned from the last, have rows and columns in the same dimensions."""
    return len(first) == len(second) and all(
        a == b or not (is_spatial(a) or is_spatial(b)) for a, b in zip(first, second, strict=True)
    )


MOST_ELEMENTS = 1 << 16
"""Longest list of axes, sizes or indices."""

REPORT_OPERATOR = "Export the network without it, or report the operator"

VARYING = "its input {} is computed from the image's size (or at random), so that a tile gives another value"
FREE_OF_SIZE = "Make the computation independent of the image's size"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operand:
    """An input or output of a node at the two probed image sizes.

    ``labels`` names each dimension of a feature map (a tensor computed from the image); None for constants. ``varies``
    says that a constant is computed from the image's size, or at random; ``position`` that a tile's piece of it can be
    computed from the tile's position; ``by_statistics`` that it is computed from statistics of the whole image,
    ``unsure`` that it is computed from the image's size, too, so that values at the probes say nothing of other sizes.
    ``space`` is the size of a feature map along (y, x), at both probes, where it has both.
    """

    name: str
    small: Fact
    large: Fact
    labels: Labels | None
    varies: bool = False
    position: bool = False
    by_statistics: bool = False
    unsure: bool = False
    space: tuple[tuple[int, int], tuple[int, int]] | None = None

    @property
    def is_feature(self) -> bool:
        return self.labels is not None

    @property
    def rank(self) -> int:
        return len(self.small.shape or ())

    def axis(self, dim: int) -> int:
        """Return ``dim`` counted from the front."""
        return dim + self.rank if dim < 0 else dim

    def sizes(self, dim: int) -> tuple[int, int]:
        """Return the dimension at both probes."""
        if self.small.shape is None or self.large.shape is None:
            raise ObstacleError("its shape depends on the data", "Make the shape depend on the image size alone")
        return self.small.shape[dim], self.large.shape[dim]

    @property
    def is_steady(self) -> bool:
        """Return whether a constant is the same for all image sizes, except for how often a value is repeated."""
        if not self.varies or self.unsure:
            return not self.varies
        first, second = self.small.value, self.large.value
        return (
            first is not None and second is not None and np.array_equal(without_repeats(first), without_repeats(second))
        )

    def repeats(self, dim: int) -> bool:
        """Return whether a constant holds the same values all along ``dim``: one entry, or a broadcast view."""
        return all(
            fact.value is not None and (fact.value.strides[dim] == 0 or fact.value.shape[dim] == 1)
            if fact.shape is not None and fact.shape[dim] != 1
            else True
            for fact in (self.small, self.large)
        )

    def constant(self, what: str) -> NDArray[Any]:
        """Return the value, which must be the same at both probes."""
        first, second = self.small.value, self.large.value
        if self.by_statistics:
            raise ObstacleError(f"its {what} is computed from pixel values", f"Export with a constant {what}")
        if first is None or second is None or first.size > MOST_ELEMENTS:
            raise ObstacleError(f"its {what} is not a constant", f"Export the network with a constant {what}")
        if not np.array_equal(first, second):
            raise ObstacleError(f"its {what} changes with the image size", f"Export with a constant {what}")
        return first


@dataclass(frozen=True, slots=True)
class NodeView:
    """One node, as rules see it."""

    node: ir.Node
    opset: int
    operands: tuple[Operand | None, ...]
    results: tuple[Operand | None, ...]

    @property
    def op(self) -> str:
        return self.node.op_type

    @property
    def features(self) -> list[tuple[int, Operand, Labels]]:
        """Return the operands that are feature maps: index, operand, labels."""
        return [
            (i, operand, operand.labels)
            for i, operand in enumerate(self.operands)
            if operand is not None and operand.labels is not None
        ]

    def feature(self, index: int = 0) -> tuple[Operand, Labels]:
        operand = self.operand(index)
        if operand is None or operand.labels is None:
            raise ObstacleError(f"input {index} is not computed from the image", REPORT_OPERATOR)
        return operand, operand.labels

    def operand(self, index: int) -> Operand | None:
        return self.operands[index] if index < len(self.operands) else None

    def result(self, index: int = 0) -> Operand:
        operand = self.results[index] if index < len(self.results) else None
        if operand is None or operand.small.shape is None or operand.large.shape is None:
            raise ObstacleError("its output shape depends on the data", "Make it depend on the image size alone")
        return operand

    def integer(self, name: str, default: int) -> int:
        return self.node.attributes.get_int(name, default)

    def integers(self, name: str, default: Sequence[int]) -> tuple[int, ...]:
        return tuple(self.node.attributes.get_ints(name, default))

    def text(self, name: str, default: str) -> str:
        return self.node.attributes.get_string(name, default)

    def has(self, name: str) -> bool:
        return name in self.node.attributes

    def only_first_is_feature(self, names: Sequence[str]) -> None:
        """Raise an obstacle if any operand but the first is computed from the image."""
        for index, _, _ in self.features:
            if index > 0:
                what = names[index - 1] if index - 1 < len(names) else f"input {index}"
                raise ObstacleError(f"its {what} is computed from the image's pixels", f"Export with a constant {what}")
