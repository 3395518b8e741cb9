"""Turn sparse initialisers and constants into dense ones, as ONNX Runtime does when it opens a model."""

from __future__ import annotations

from math import prod

import numpy as np
import onnx
from onnx import SparseTensorProto, TensorProto, helper, numpy_helper

from exactile.errors import ModelError
from exactile_converters.onnx_files.untrusted import with_subgraphs

LARGEST_ELEMENTS = 1 << 28
"""Most elements of one dense tensor: a file of a few bytes may claim any shape."""


def write_out_sparse(proto: onnx.ModelProto, name: str) -> None:
    """Replace the main graph's sparse initialisers, and sparse constants, in place.

    Raises ModelError where the contents do not fit the claimed shape.
    """
    graph = proto.graph
    for sparse in graph.sparse_initializer:
        graph.initializer.append(_dense(sparse, name))
    del graph.sparse_initializer[:]
    for node in with_subgraphs([*graph.node, *(node for function in proto.functions for node in function.node)]):
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "sparse_value":
                attribute.CopyFrom(helper.make_attribute("value", _dense(attribute.sparse_tensor, name)))


def _dense(sparse: SparseTensorProto, name: str) -> TensorProto:
    shape, title = tuple(sparse.dims), sparse.values.name
    if any(size < 0 for size in shape) or prod(shape) > LARGEST_ELEMENTS:
        raise ModelError(
            f"{name}: the sparse tensor {title!r} of {list(shape)} has more than {LARGEST_ELEMENTS} elements written "
            "out; save the model again with dense weights"
        )
    values, places = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
    if places.ndim == 2:
        inside = places.shape[1] == len(shape) and bool(((places >= 0) & (places < shape)).all())
        places = np.ravel_multi_index(tuple(places.T), shape) if inside else np.array([-1])
    if values.shape != places.shape or (places.size and not 0 <= places.min() <= places.max() < prod(shape)):
        raise ModelError(f"{name}: the sparse tensor {title!r} names places beyond its shape {list(shape)}")
    dense = np.zeros(prod(shape), values.dtype)
    dense[places] = values
    return numpy_helper.from_array(dense.reshape(shape), title)
