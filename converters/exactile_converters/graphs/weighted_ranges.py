"""Ranges of weighted sums: convolutions, matrix products, batch normalisation, by their constant weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from exactile_converters.graphs.interval import BLOCK, UNKNOWN, Interval, of_array
from exactile_converters.graphs.node_ranges import NodeRanges

Array = NDArray[np.float64]


def _sums(found: Interval, positive: Array, negative: Array, bias: Array | float) -> Interval:
    """Return the hull of weighted sums of values in ``found``, by the sums of ``positive`` and ``negative`` weights."""
    if found.nan or not found.bounded:
        return UNKNOWN
    low = (positive * found.low + negative * found.high + bias).min()
    high = (positive * found.high + negative * found.low + bias).max()
    return Interval(low=float(low), high=float(high)) if np.isfinite([low, high]).all() else UNKNOWN


def _split(weights: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    return np.maximum(weights, 0).sum(axes), np.minimum(weights, 0).sum(axes)


def _split_rows(weights: NDArray[np.generic]) -> tuple[Array, Array]:
    """Sum the weights of each output channel, (O, ...), some channels at a time: copies of all would be large."""
    axes, step = tuple(range(1, weights.ndim)), max(1, BLOCK * weights.shape[0] // max(1, weights.size))
    parts = [
        _split(weights[start : start + step].astype(np.float64), axes) for start in range(0, weights.shape[0], step)
    ]
    positive, negative = zip(*parts, strict=True)
    return np.concatenate(positive), np.concatenate(negative)


def _bias(view: NodeRanges, index: int) -> Array | float:
    given = len(view.inputs) > index and view.inputs[index] is not None
    return view.needed(index).astype(np.float64).reshape(-1) if given else 0.0


def _pads(view: NodeRanges) -> bool:
    pads = view.node.attributes.get_ints("pads", ())
    return any(pads or ()) or view.text("auto_pad", "NOTSET").startswith("SAME")


def _conv(view: NodeRanges) -> Interval:
    weights = view.needed(1)
    found = view.of(0).with_zero() if _pads(view) else view.of(0)
    positive, negative = _split_rows(weights)
    return _sums(found, positive, negative, _bias(view, 2))


def _conv_transpose(view: NodeRanges) -> Interval:
    """Return the range, where each output pixel reads some of the taps: the others count as zeros."""
    weights = view.needed(1).astype(np.float64)
    groups = view.node.attributes.get_int("group", 1)
    grouped = weights.reshape(groups, -1, *weights.shape[1:])
    positive, negative = _split(grouped, (1, *range(3, grouped.ndim)))
    return _sums(view.of(0).with_zero(), positive.reshape(-1), negative.reshape(-1), _bias(view, 2))


def _matmul(view: NodeRanges) -> Interval:
    first, second = view.constant(0), view.constant(1)
    if second is not None and second.ndim >= 2:
        positive, negative = _split(second.astype(np.float64), (-2,))
        return _sums(view.of(0), positive, negative, 0.0)
    weights = view.needed(0) if first is None else first
    positive, negative = _split(weights.astype(np.float64), (-1,))
    return _sums(view.of(1), positive, negative, 0.0)


def _gemm(view: NodeRanges) -> Interval:
    weights = view.needed(1).astype(np.float64) * view.number("alpha", 1.0)
    axis = 1 if view.node.attributes.get_int("transB", 0) else 0
    found = _sums(view.of(0), *_split(weights, (axis,)), 0.0)
    bias = of_array(view.needed(2)) if len(view.given) > 2 else None
    beta = view.number("beta", 1.0)
    return found + bias * Interval(low=beta, high=beta) if bias is not None else found


def _batch_normalization(view: NodeRanges) -> Interval:
    scale, shift, mean, variance = (view.needed(index).astype(np.float64) for index in range(1, 5))
    slope = scale / np.sqrt(variance + view.number("epsilon", 1e-5))
    return _sums(view.of(0), np.maximum(slope, 0), np.minimum(slope, 0), shift - mean * slope)


WEIGHTED: Mapping[str, Callable[[NodeRanges], Interval]] = {
    "BatchNormalization": _batch_normalization,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
}
