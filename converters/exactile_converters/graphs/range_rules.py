"""Ranges of operators' results, from those of their inputs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from exactile_converters.graphs.curve_ranges import CURVES
from exactile_converters.graphs.interval import UNKNOWN, ZERO, Interval, of_array, of_number, of_type
from exactile_converters.graphs.node_ranges import NodeRanges, NoRangeError, dtype_of
from exactile_converters.graphs.weighted_ranges import WEIGHTED

Rule = Callable[[NodeRanges], Interval]

SAME = frozenset(
    "Identity Transpose Reshape Squeeze Unsqueeze Flatten Slice Gather GatherND GatherElements Split Expand Tile "
    "DepthToSpace SpaceToDepth Dropout ReduceMax ReduceMin GlobalMaxPool Compress ReverseSequence".split()
)
"""Operators whose results are some of the values of their first input."""

BOOLEAN = frozenset("Not And Or Xor Greater GreaterOrEqual Less LessOrEqual Equal IsNaN IsInf".split())
LARGEST_NORMALISED = 2.0**20
"""A normalised value is at most the root of the number of values that are normalised together."""
LARGEST_SQUARABLE = 1e18


def _where(view: NodeRanges) -> Interval:
    return view.of(1).hull(view.of(2))


def _concat(view: NodeRanges) -> Interval:
    found = view.given
    hull = found[0]
    for other in found[1:]:
        hull = hull.hull(other)
    return hull


def _extreme(choose: Callable[..., float]) -> Rule:
    def rule(view: NodeRanges) -> Interval:
        found = view.given
        return Interval(
            low=choose(part.low for part in found),
            high=choose(part.high for part in found),
            whole=all(part.whole for part in found),
            nan=any(part.nan for part in found),
        )

    return rule


def _sum(view: NodeRanges) -> Interval:
    found = view.given
    total = found[0]
    for other in found[1:]:
        total = total + other
    return total


def _mean(view: NodeRanges) -> Interval:
    return replace(_sum(view) * of_number(1 / len(view.given)), whole=False)


def _pow(view: NodeRanges) -> Interval:
    found, powers = view.of(0), of_array(view.needed(1))
    if powers.low != powers.high or powers.low not in (1.0, 2.0):
        raise NoRangeError
    if powers.low == 1.0:
        return found
    square = found * found
    return replace(square, low=0.0 if found.within_zero() else min(found.low**2, found.high**2))


def _boolean(_view: NodeRanges) -> Interval:
    return of_type(np.dtype(np.bool_))


def _arg_max(view: NodeRanges) -> Interval:
    size = view.size(0, view.node.attributes.get_int("axis", 0))
    if size is None:
        raise NoRangeError
    return Interval(low=0.0, high=max(0.0, size - 1.0), whole=True)


def _cast(view: NodeRanges) -> Interval:
    found, dtype = view.of(0), dtype_of(view.node.outputs[0], view.features)
    if dtype.kind == "b":
        return of_type(dtype)
    # Beyond the type's range, results of runtimes are undefined.
    return found.limited(dtype)


def _one_hot(view: NodeRanges) -> Interval:
    return of_array(view.needed(2))


def _reduce_mean(view: NodeRanges) -> Interval:
    return replace(view.of(0), whole=False)


def _reduce_sum(view: NodeRanges) -> Interval:
    return view.of(0) * of_number(_reduced(view))


def _reduced(view: NodeRanges) -> int:
    """Return how many values are combined. Raises NoRangeError where that follows the image."""
    axes = view.node.attributes.get_ints("axes", None)
    if axes is None:
        axes = tuple(int(axis) for axis in view.needed(1).reshape(-1))
    sizes = [view.size(0, axis) for axis in axes]
    if not sizes or None in sizes:
        raise NoRangeError
    return math.prod(size for size in sizes if size is not None)


def _pad(view: NodeRanges) -> Interval:
    if view.text("mode", "constant") != "constant":
        return view.of(0)
    given = view.constant(2)
    if given is None and len(view.inputs) > 2 and view.inputs[2] is not None:
        raise NoRangeError
    value = float(given.reshape(-1)[0]) if given is not None and given.size else view.number("value", 0.0)
    return view.of(0).hull(of_number(value))


def _average_pool(view: NodeRanges) -> Interval:
    found = replace(view.of(0), whole=False)
    return found.with_zero() if view.node.attributes.get_int("count_include_pad", 0) else found


def _max_unpool(view: NodeRanges) -> Interval:
    return view.of(0).with_zero()


def _resize(view: NodeRanges) -> Interval:
    found, mode = view.of(0), view.text("mode", "nearest")
    if view.text("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        found = found.hull(of_number(view.number("extrapolation_value", 0.0)))
    if mode == "nearest":
        return found
    found = replace(found, whole=False, nan=found.nan or not found.bounded)
    if mode != "cubic":
        return found
    # The negative weights of a cubic along one axis sum to at most |a| / 4; renormalised ones get more room.
    exclude = view.node.attributes.get_int("exclude_outside", 0)
    share = 1.0 if exclude else abs(view.number("cubic_coeff_a", -0.75)) / 4
    for _axis in range(2):
        more = share * (found.high - found.low)
        found = replace(found, low=found.low - more, high=found.high + more)
    return found


def _mod(view: NodeRanges) -> Interval:
    by = of_array(view.needed(1))
    if not by.whole or by.low < 1 or not view.of(0).whole:
        raise NoRangeError
    return Interval(low=0.0 if view.of(0).low >= 0 or not view.node.attributes.get_int("fmod", 0) else 1 - by.high,
                    high=by.high - 1, whole=True)  # fmt: skip


def _div(view: NodeRanges) -> Interval:
    found = view.of(0) / view.of(1)
    if dtype_of(view.node.outputs[0], view.features).kind in "iu":
        return Interval(low=math.floor(found.low), high=math.ceil(found.high), whole=True, nan=found.nan)
    return found


def _quantize(view: NodeRanges) -> Interval:
    """Round and clip to the type of the zero point."""
    zero = view.constant(2)
    kind = of_type(zero.dtype if zero is not None else np.dtype(np.uint8))
    scale = view.needed(1)
    if scale.size != 1 or (zero is not None and zero.size != 1) or not view.of(0).bounded:
        return kind
    offset = float(zero.reshape(-1)[0]) if zero is not None else 0.0
    low, high = (
        min(max(round(bound / float(scale.reshape(-1)[0])) + offset, kind.low), kind.high)
        for bound in (view.of(0).low, view.of(0).high)
    )
    return Interval(low=low, high=high, whole=True)


def _dequantize(view: NodeRanges) -> Interval:
    zero = view.constant(2)
    offset = of_array(zero) if zero is not None else ZERO
    return replace((view.of(0) - offset) * of_array(view.needed(1)), whole=False)


def _normalized(view: NodeRanges) -> Interval:
    """Return the range of instance, layer and group normalisation: a bound on normalised values, scaled and shifted."""
    found = view.of(0)
    if found.nan or not found.within(-LARGEST_SQUARABLE, LARGEST_SQUARABLE):
        return UNKNOWN
    shifted = Interval(low=-LARGEST_NORMALISED, high=LARGEST_NORMALISED) * of_array(view.needed(1))
    return shifted + of_array(view.needed(2)) if len(view.given) > 2 else shifted


def _constant_of_shape(view: NodeRanges) -> Interval:
    given = view.node.attributes.get("value")
    return of_array(np.asarray(given.value.numpy())) if given is not None else ZERO


Array = NDArray[np.generic]

RULES: dict[str, Rule] = {
    **WEIGHTED,
    **CURVES,
    **dict.fromkeys(BOOLEAN, _boolean),
    "Add": lambda view: view.of(0) + view.of(1),
    "ArgMax": _arg_max,
    "ArgMin": _arg_max,
    "AveragePool": _average_pool,
    "Cast": _cast,
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "DequantizeLinear": _dequantize,
    "Div": _div,
    "GlobalAveragePool": _reduce_mean,
    "GroupNormalization": _normalized,
    "InstanceNormalization": _normalized,
    "LayerNormalization": _normalized,
    "Max": _extreme(max),
    "MaxPool": lambda view: view.of(0),
    "MaxUnpool": _max_unpool,
    "Mean": _mean,
    "Min": _extreme(min),
    "Mod": _mod,
    "Mul": lambda view: view.of(0) * view.of(1),
    "Neg": lambda view: -view.of(0),
    "OneHot": _one_hot,
    "Pad": _pad,
    "Pow": _pow,
    "QuantizeLinear": _quantize,
    "Reciprocal": lambda view: of_number(1.0) / view.of(0),
    "ReduceMean": _reduce_mean,
    "ReduceSum": _reduce_sum,
    "Resize": _resize,
    "Sub": lambda view: view.of(0) - view.of(1),
    "Sum": _sum,
    "Upsample": _resize,
    "Where": _where,
}
