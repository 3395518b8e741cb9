"""Batch several tiles: the graph that a bundle has for one tile, for ``N`` of them as the first axis.

The bundle's graph begins with Transpose and Unsqueeze, from (H, W, C) to (1, C, H, W), and ends with Squeeze and a
Transpose or Identity. Between them, most networks take any number of images; whether this one does is tried, not
inferred from the graph.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from exactile.errors import ModelError


def batched(model: onnx.ModelProto, image: str, result: str, count: int) -> None:
    """Rewrite ``model`` in place: ``image`` (N, H, W, C) and ``result`` (N, H', W') or (N, C', H', W').

    Raises ModelError where the graph does not begin or end like exactile's graphs.
    """
    _Batching(model, count).apply(image, result)


class _Batching:
    def __init__(self, model: onnx.ModelProto, count: int) -> None:
        self._graph, self._count = model.graph, count
        self._producers: dict[str, onnx.NodeProto] = {name: node for node in model.graph.node for name in node.output}
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}

    def apply(self, image: str, result: str) -> None:
        self._begin(image)
        self._end(result)
        for value in (*self._graph.input, *self._graph.output):
            if value.name in (image, result):
                self._prepend_dim(value)
        del self._graph.value_info[:]

    def _begin(self, image: str) -> None:
        transpose = self._only_reader(image, "Transpose")
        unsqueeze = self._only_reader(transpose.output[0], "Unsqueeze")
        if self._perm(transpose) != [2, 0, 1] or self._axes(unsqueeze) != [0]:
            raise self._other("begins")
        self._set_perm(transpose, [0, 3, 1, 2])
        unsqueeze.op_type = "Identity"
        del unsqueeze.input[1:]

    def _end(self, result: str) -> None:
        node = self._made_by(result)
        while node.op_type in ("Transpose", "Identity", "Unsqueeze"):
            if node.op_type == "Transpose":
                self._set_perm(node, [0, *(axis + 1 for axis in self._perm(node))])
            elif node.op_type == "Unsqueeze":
                self._set_axes(node, [axis + 1 for axis in self._axes(node)])
            node = self._made_by(node.input[0])
        axes = self._axes(node) if node.op_type == "Squeeze" else []
        if 0 not in axes:
            raise self._other("ends")
        kept = [axis for axis in axes if axis != 0]
        if kept:
            self._set_axes(node, kept)
        else:
            node.op_type = "Identity"
            del node.input[1:]

    def _only_reader(self, name: str, op: str) -> onnx.NodeProto:
        readers: list[onnx.NodeProto] = [node for node in self._graph.node if name in node.input]
        if len(readers) != 1 or readers[0].op_type != op:
            raise self._other("begins")
        return readers[0]

    def _made_by(self, name: str) -> onnx.NodeProto:
        if name not in self._producers:
            raise self._other("ends")
        return self._producers[name]

    def _perm(self, node: onnx.NodeProto) -> list[int]:
        return [int(axis) for attribute in node.attribute if attribute.name == "perm" for axis in attribute.ints]

    def _set_perm(self, node: onnx.NodeProto, perm: list[int]) -> None:
        del node.attribute[:]
        node.attribute.append(onnx.helper.make_attribute("perm", perm))

    def _axes(self, node: onnx.NodeProto) -> list[int]:
        tensor = self._constants.get(node.input[1]) if len(node.input) > 1 else None
        return [int(axis) for axis in numpy_helper.to_array(tensor).ravel()] if tensor is not None else []

    def _set_axes(self, node: onnx.NodeProto, axes: list[int]) -> None:
        name = f"{node.output[0]}_axes_of_a_batch"
        self._graph.initializer.append(numpy_helper.from_array(np.array(axes, np.int64), name))
        node.input[1] = name

    def _prepend_dim(self, value: onnx.ValueInfoProto) -> None:
        shape = value.type.tensor_type.shape
        dims = [onnx.TensorShapeProto.Dimension() for _ in shape.dim]
        for copy, dim in zip(dims, shape.dim, strict=True):
            copy.CopyFrom(dim)
        del shape.dim[:]
        shape.dim.add().dim_value = self._count
        shape.dim.extend(dims)

    def _other(self, where: str) -> ModelError:
        return ModelError(f"the graph {where} differently from one that exactile made; build for a batch of 1")
