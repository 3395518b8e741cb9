"""Decide whether masks computed from a size are those of adaptive pooling, by computing them at many sizes.

Bin i of k along an axis of n entries contains entries from ``floor(i*n/k)`` up to, not including, ``ceil((i+1)*n/k)``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import lcm
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import TensorProto, helper

from exactile.engines.onnx_runtime import load_library
from exactile_converters.geometry.feature_maps import FeatureMap, image_shape
from exactile_converters.geometry.node_view import SPATIAL, Labels

LARGE = (499, 1000, 4093, 65537)
"""Further lengths of an axis, in pixels of the map."""

MOST_PADDED = 8
"""A network may pad its image to a multiple of up to this many of its strides; fewer lengths of maps then occur."""

BEYOND = 7
"""The map has this many more columns than rows, so that the two are not confused."""

ERRORS_ONLY = 4
LATEST_IR_VERSION = 10
MOST_DIMS = 4
Shape = tuple[int, ...]
Array = NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedBins:
    """The masks of each bin along rows and along columns; for means, also the ``pixels`` of each bin."""

    rows: tuple[ir.Value, ...]
    columns: tuple[ir.Value, ...]
    pixels: ir.Value | None

    @property
    def values(self) -> list[ir.Value]:
        """Return all values, each once."""
        pixels = [self.pixels] if self.pixels is not None else []
        return list(dict.fromkeys([*self.rows, *self.columns, *pixels]))


def are_bins(
    bins: MaskedBins, feature: FeatureMap, features: Mapping[str, FeatureMap], image: ir.Value, labels: Labels
) -> bool:
    """Return whether ``bins`` of the map ``feature`` are those of adaptive pooling at every size tried.

    Their masks must be computed from the size of an equally large map among ``features``, or from that of the
    ``image``, whose axes are ``labels``.
    """
    found = _shape_arithmetic(bins.values)
    if found is None:
        return False
    nodes, asking, source = found
    asked = features.get(source.name or "")
    of_image = source is image
    if not of_image and (asked is None or not _as_large(asked, feature)):
        return False
    stride = lcm(*(feature.scale[axis].denominator for axis in SPATIAL)) if of_image else 1
    channels = _channels(image, labels) if asked is None else asked.shape[asked.labels.index("c")]
    axes = labels if asked is None else asked.labels
    try:
        computed = _computing(nodes, asking, bins.values)
        lengths = set()
        for size in _sizes(bins, stride):
            shape = image_shape(axes, channels, size)
            length = _length_if_right(bins, computed(shape), None if of_image else size)
            if length is None:
                return False
            lengths.add(length)
    except Exception:  # noqa: BLE001  # what cannot be computed at a size is no such mask
        return False
    return len(lengths - {0}) >= _lengths_wanted(bins)


def _as_large(one: FeatureMap, other: FeatureMap) -> bool:
    return one.labels == other.labels and one.scale == other.scale and one.constant == other.constant


def _lengths_wanted(bins: MaskedBins) -> int:
    """Return the number of lengths that gives all remainders by the number of bins, and lengths below it."""
    return 3 * max(len(bins.rows), len(bins.columns)) + 2


def _sizes(bins: MaskedBins, stride: int) -> Iterator[tuple[int, int]]:
    """Yield sizes of the image (or map) whose map is ``stride`` times smaller, or padded to multiples of strides."""
    most = stride * _lengths_wanted(bins)
    steps = (*range(1, most + 1), *range(most + stride, MOST_PADDED * most + 1, stride))
    for size in (*steps, *(stride * large for large in LARGE)):
        yield size, size + stride * BEYOND


def _channels(image: ir.Value, labels: Labels) -> int:
    dim = list(image.shape or ())[labels.index("c")]
    return dim if isinstance(dim, int) else 1


def _length_if_right(bins: MaskedBins, values: Mapping[str, Array], size: tuple[int, int] | None) -> int | None:
    """Return the number of rows that the masks are for, 0 if there are none; None if they are other masks.

    ``size`` is that of the map, where masks are computed from it.
    """
    lengths, pixels = [], list[Array]()
    for index, masks in enumerate((bins.rows, bins.columns)):
        found = [_line(values[mask.name or ""], 1 - index) for mask in masks]
        length = len(found[0]) if found[0] is not None else -1
        if length == 0:
            return 0  # the image is smaller than the network takes
        expected = [_bin(length, number, len(masks)) for number in range(len(masks))]
        right = all(one is not None and np.array_equal(one, bin_) for one, bin_ in zip(found, expected, strict=True))
        if not right or (size is not None and size[index] != length):
            return None
        lengths.append(length)
        pixels.append(np.array([bin_.sum() for bin_ in expected]))
    right = bins.pixels is None or _counts(values[bins.pixels.name or ""], np.outer(*pixels))
    return lengths[0] if right else None


def _counts(pixels: Array, expected: Array) -> bool:
    alone = pixels.shape[-2:] == expected.shape and pixels.size == expected.size
    return alone and np.array_equal(pixels.ravel(), expected.ravel().astype(pixels.dtype))


def _bin(length: int, index: int, count: int) -> Array:
    mask = np.zeros(max(0, length), np.bool_)
    mask[index * length // count : -(-(index + 1) * length // count)] = True
    return mask


def _line(mask: Array, dims_behind: int) -> Array | None:
    """Return the entries of a mask that varies along one dimension only, before ``dims_behind`` others; else None."""
    shape = mask.shape if dims_behind < mask.ndim <= MOST_DIMS else ()
    along = len(shape) - 1 - dims_behind
    if not shape or any(size != 1 for dim, size in enumerate(shape) if dim != along):
        return None
    return mask.reshape(-1)


def _shape_arithmetic(values: Sequence[ir.Value]) -> tuple[list[ir.Node], list[ir.Node], ir.Value] | None:
    """Return how ``values`` are computed from one value's shape: nodes in order, the Shape nodes, and that value.

    None where they are computed from anything else.
    """
    nodes: dict[ir.Node, None] = {}
    asking: dict[ir.Node, None] = {}
    stack = [(value, False) for value in values]
    while stack:
        value, ready = stack.pop()
        node = value.producer()
        if node is None:
            if ir.convenience.get_const_tensor(value) is None:
                return None
        elif node.domain not in ("", "ai.onnx"):
            return None
        elif node.op_type == "Shape":
            asking[node] = None
        elif ready:
            nodes[node] = None
        elif node not in nodes:
            stack.append((value, True))
            stack.extend((operand, False) for operand in node.inputs if operand is not None)
    sources = {node.inputs[0] for node in asking}
    source = sources.pop() if len(sources) == 1 else None
    return (list(nodes), list(asking), source) if source is not None else None


def _computing(
    nodes: Sequence[ir.Node], asking: Sequence[ir.Node], values: Sequence[ir.Value]
) -> Callable[[Shape], dict[str, Array]]:
    """Return a function that computes ``values``, by name, for the shape that ``asking`` yield, with ONNX Runtime."""
    ort = load_library()
    known = {
        value: ir.convenience.get_const_tensor(value) for node in nodes for value in node.inputs if value is not None
    }
    constants = [
        ir.to_proto(ir.tensor(tensor.numpy(), name=value.name)) for value, tensor in known.items() if tensor is not None
    ]
    inputs = [helper.make_tensor_value_info(node.outputs[0].name or "", TensorProto.INT64, [None]) for node in asking]
    outputs = [onnx.ValueInfoProto(name=value.name) for value in values]
    graph = helper.make_graph([ir.to_proto(node) for node in nodes], "masks", inputs, outputs, constants)
    owner = nodes[0].graph
    assert isinstance(owner, ir.Graph)
    opsets = [helper.make_opsetid(domain, version) for domain, version in owner.opset_imports.items()]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=LATEST_IR_VERSION)
    options = ort.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [value.name or "" for value in values]

    def computed(shape: Shape) -> dict[str, Array]:
        given = {
            node.outputs[0].name: np.array(
                shape[node.attributes.get_int("start", 0) : node.attributes.get_int("end", len(shape))], np.int64
            )
            for node in asking
        }
        return dict(zip(names, session.run(names, given), strict=True))

    return computed
