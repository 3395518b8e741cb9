"""A node with the ranges of its inputs, as rules for ranges see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from exactile_converters.geometry.feature_maps import FeatureMap
from exactile_converters.graphs.interval import Interval

MOST_WEIGHTS = 1 << 28
"""Larger constants are not scanned."""


@dataclass(frozen=True, slots=True)
class NodeRanges:
    """A node with the ranges of its inputs, None for omitted ones."""

    node: ir.Node
    inputs: tuple[Interval | None, ...]
    features: Mapping[str, FeatureMap]

    def of(self, index: int) -> Interval:
        """Return the range of input ``index``. Raises NoRangeError where there is none."""
        found = self.inputs[index] if index < len(self.inputs) else None
        if found is None:
            raise NoRangeError
        return found

    @property
    def given(self) -> list[Interval]:
        return [found for found in self.inputs if found is not None]

    def constant(self, index: int) -> NDArray[np.generic] | None:
        value = self.node.inputs[index] if index < len(self.node.inputs) else None
        return constant_of(value) if value is not None else None

    def needed(self, index: int) -> NDArray[np.generic]:
        """Return the constant input ``index``. Raises NoRangeError where it is not a constant."""
        found = self.constant(index)
        if found is None:
            raise NoRangeError
        return found

    def number(self, name: str, default: float) -> float:
        found = self.node.attributes.get(name)
        return float(found.value) if found is not None else default

    def text(self, name: str, default: str) -> str:
        return self.node.attributes.get_string(name, default) or default

    def size(self, index: int, axis: int) -> int | None:
        """Return the size of a dimension of input ``index`` that does not follow the image."""
        value = self.node.inputs[index]
        if value is None:
            return None
        feature = self.features.get(value.name or "")
        if feature is not None:
            label = feature.labels[axis]
            return feature.shape[axis] if label in ("n", "c") else None
        found = constant_of(value)
        return found.shape[axis] if found is not None and -found.ndim <= axis < found.ndim else None


class NoRangeError(Exception):
    """The range cannot be computed: it is that of the type."""


def constant_of(value: ir.Value) -> NDArray[np.generic] | None:
    """Return the array of a constant, also of one that is dequantised."""
    if value.const_value is not None:
        return value.const_value.numpy() if value.const_value.size <= MOST_WEIGHTS else None
    node = value.producer()
    if node is None or node.op_type != "DequantizeLinear" or node.attributes.get_int("block_size", 0) > 0:
        return None
    parts = [constant_of(part) if part is not None else None for part in node.inputs]
    if parts[0] is None or parts[1] is None or (len(parts) > 2 and node.inputs[2] is not None and parts[2] is None):
        return None
    stored, scale = parts[0].astype(np.float64), parts[1].astype(np.float64)
    zero = parts[2].astype(np.float64) if len(parts) > 2 and parts[2] is not None else np.zeros(())
    shape = [1] * stored.ndim
    if scale.ndim == 1 and scale.size > 1:
        shape[node.attributes.get_int("axis", 1)] = -1
        scale, zero = scale.reshape(shape), np.broadcast_to(zero, scale.shape).reshape(shape)
    return (stored - zero.reshape(scale.shape if zero.size > 1 else ())) * (scale if scale.size > 1 else scale.item())


def dtype_of(value: ir.Value, features: Mapping[str, FeatureMap]) -> np.dtype[np.generic]:
    """Return the type of a value's numbers, float32 where the graph does not declare it."""
    feature = features.get(value.name or "")
    kind = ir.DataType(feature.dtype) if feature is not None and feature.dtype else value.dtype
    if kind is None:
        return np.dtype(np.float32)
    try:
        return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(int(kind)))
    except KeyError:
        return np.dtype(np.float32)
