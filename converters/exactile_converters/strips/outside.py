"""Constants stored outside of graphs: ONNX Runtime gets them by name, once for all graphs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, numpy_helper

from exactile_converters.geometry.probe import SMALL_VALUE_ELEMENTS
from exactile_converters.graphs.fewer_bits import FLOAT_OF

SHARED_FROM_BYTES = 1024
"""Constants of at least this size are stored outside of the graphs."""

Weights = dict[str, NDArray[Any]]
EMPTY: Mapping[str, NDArray[Any]] = MappingProxyType({})


def large_constants(graph: ir.Graph) -> Weights:
    """Return the constants that are kept outside from the start: no step reads their values, and copies would be slow.

    Excludes those that are finally stored in half precision.
    """
    found: Weights = {}
    for name, value in graph.initializers.items():
        stored = value.const_value
        if stored is None or stored.size <= SMALL_VALUE_ELEMENTS or name.startswith(FLOAT_OF):
            continue
        array = stored.numpy()
        if array.dtype.isnative and array.dtype.kind in "biuf" and array.nbytes >= SHARED_FROM_BYTES:
            found[name] = np.ascontiguousarray(array)
    return found


def share_weights(
    model: ModelProto, weights: Weights, of: Collection[str] | None = None, outside: Mapping[str, NDArray[Any]] = EMPTY
) -> Weights:
    """Move large constants out of a graph, to be given to ONNX Runtime by name; return those that were moved.

    A constant whose name already belongs to another one in ``weights`` stays in the graph; with ``of``, so do all but
    these. ``outside`` holds values of those that were kept outside from the start.
    """
    moved: Weights = {}
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            moved[tensor.name] = weights.setdefault(tensor.name, outside[tensor.name])
            continue
        array = numpy_helper.to_array(tensor)
        if array.nbytes < SHARED_FROM_BYTES or (of is not None and tensor.name not in of):
            continue
        known = weights.setdefault(tensor.name, array)
        if known is not array and (known.dtype != array.dtype or not np.array_equal(known, array)):
            continue
        moved[tensor.name] = known
        leave_outside(tensor)
    return moved


def leave_outside(tensor: TensorProto) -> None:
    """Remove the values of ``tensor``, and mark them as external."""
    tensor.ClearField("raw_data")
    for field in ("float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
        tensor.ClearField(field)
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "weights"
