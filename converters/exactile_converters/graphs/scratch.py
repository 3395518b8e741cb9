"""Scratch memory of kernels, in addition to operands and results, where it is as large as a map.

After the kernels of version 1.32: ``qlinearconv.cc``, ``conv_integer.cc``, ``qlinear_pool.cc``, ``bias_gelu_helper.h``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod

from exactile.contract import BytesForShape
from exactile_converters.graphs.uses import NOTHING, NodeUse, TensorUse, times

Tensors = Mapping[str, TensorUse]
Scratch = tuple[BytesForShape, ...]

INT32 = 4
FLOAT32 = 4
POINTER = 8
SPACE = 2
"""Dimensions of a filter before those over which it slides."""


def scratch_of(node: NodeUse, tensors: Tensors) -> Scratch:
    """Return one size for each buffer; none for kernels that need none or little."""
    rule = _RULES.get(node.op)
    return rule(node, tensors) if rule is not None else ()


def _source(node: NodeUse, tensors: Tensors) -> BytesForShape:
    return next((tensors[name].bytes for name in node.inputs if name in tensors), NOTHING)


def _result(node: NodeUse, tensors: Tensors) -> BytesForShape:
    return tensors[node.outputs[0]].bytes


def _quantized_convolution(node: NodeUse, tensors: Tensors) -> Scratch:
    """Return 32-bit sums, the windows side by side, and both maps with channels last."""
    result = _result(node, tensors)
    return (times(result, INT32), _windows(node, result), _source(node, tensors), result)


def _integer_convolution(node: NodeUse, tensors: Tensors) -> Scratch:
    return (_windows(node, times(_result(node, tensors), 1 / INT32)),)


def _windows(node: NodeUse, result: BytesForShape) -> BytesForShape:
    """Return a byte for each sample that a window reads, or a pointer for each pixel, for a 1-byte ``result``."""
    if len(node.weight_shape) <= SPACE:
        return NOTHING
    pixels = prod(node.weight_shape[SPACE:])
    plain = pixels == 1 and not any(_whole(node, "pads")) and all(step == 1 for step in _whole(node, "strides"))
    return times(result, 0 if plain else pixels * max(POINTER, node.weight_shape[1]) / node.weight_shape[0])


def _whole(node: NodeUse, attribute: str) -> tuple[int, ...]:
    value = node.attributes.get(attribute, ())
    return tuple(int(number) for number in value) if isinstance(value, (tuple, list)) else ()


def _quantized_product(node: NodeUse, tensors: Tensors) -> Scratch:
    return (times(_result(node, tensors), INT32),)


def _average(node: NodeUse, tensors: Tensors) -> Scratch:
    """Return the whole map in single precision."""
    return (times(_source(node, tensors), FLOAT32),)


def _turned(node: NodeUse, tensors: Tensors) -> Scratch:
    """Return the map with the axis last, before and after."""
    return (_result(node, tensors), _result(node, tensors))


def _biased(node: NodeUse, tensors: Tensors) -> Scratch:
    """Return the map with its bias."""
    return (_result(node, tensors),) if len(node.inputs) > 1 else ()


_RULES: dict[str, Callable[[NodeUse, Tensors], Scratch]] = {
    "BiasGelu": _biased,
    "ConvInteger": _integer_convolution,
    "FastGelu": _biased,
    "QLinearAveragePool": _average,
    "QLinearConv": _quantized_convolution,
    "QLinearMatMul": _quantized_product,
    "QLinearSoftmax": _turned,
    "QLinearWhere": _turned,
}
