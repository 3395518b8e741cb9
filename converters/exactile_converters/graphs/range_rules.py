"""Ranges of what operators give, by those of what they take."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from exactile_converters.graphs.interval import UNIT, UNKNOWN, ZERO, Interval, of_array, of_type
from exactile_converters.graphs.ranges import NodeRanges, NoRangeError, dtype_of
from exactile_converters.graphs.weighted_ranges import WEIGHTED

Rule = Callable[[NodeRanges], Interval]

SAME = frozenset(
    "Identity Transpose Reshape Squeeze Unsqueeze Flatten Slice Gather GatherND GatherElements Split Expand Tile "
    "DepthToSpace SpaceToDepth Dropout ReduceMax ReduceMin GlobalMaxPool Compress ReverseSequence".split()
)
"""Operators that give some of the values of their first input."""

BOOLEAN = frozenset("Not And Or Xor Greater GreaterOrEqual Less LessOrEqual Equal IsNaN IsInf".split())
LARGEST_NORMALISED = 2.0**20
"""No normalised value is larger than the root of how many values are normalised together."""
LARGEST_SQUARABLE = 1e18


def _rising(function: Callable[[float], float], *, whole: bool = False) -> Rule:
    def rule(view: NodeRanges) -> Interval:
        found = view.of(0)
        low, high = (_at(function, bound) for bound in (found.low, found.high))
        return found.monotone(low, high, whole=whole)

    return rule


def _at(function: Callable[[float], float], bound: float) -> float:
    try:
        return float(function(bound))
    except OverflowError:
        return math.inf if bound > 0 else bound


def _exp(bound: float) -> float:
    return math.exp(bound)


def _sigmoid(bound: float) -> float:
    return 1 / (1 + math.exp(-bound)) if bound >= 0 else math.exp(bound) / (1 + math.exp(bound))


def _softplus(bound: float) -> float:
    return max(bound, 0.0) + math.log1p(math.exp(-abs(bound)))


def _round_to_integer(function: Callable[[float], int]) -> Rule:
    return _rising(lambda bound: bound if math.isinf(bound) else function(bound), whole=True)


def _log(view: NodeRanges) -> Interval:
    found = view.of(0)
    low, high = (math.log(bound) if bound > 0 else -math.inf for bound in (found.low, found.high))
    return Interval(low=low, high=high, nan=found.nan or found.low < 0)


def _sqrt(view: NodeRanges) -> Interval:
    found = view.of(0)
    low, high = (math.sqrt(max(bound, 0.0)) for bound in (found.low, found.high))
    return Interval(low=low, high=high, nan=found.nan or found.low < 0)


def _abs(view: NodeRanges) -> Interval:
    found = view.of(0)
    ends = abs(found.low), abs(found.high)
    return replace(found, low=0.0 if found.within_zero() else min(ends), high=max(ends))


def _hard_sigmoid(view: NodeRanges) -> Interval:
    found, alpha, beta = view.of(0), view.number("alpha", 0.2), view.number("beta", 0.5)
    scaled = found * _number(alpha) + _number(beta)
    return replace(scaled, low=min(max(scaled.low, 0.0), 1.0), high=min(max(scaled.high, 0.0), 1.0), nan=found.nan)


def _softmax(view: NodeRanges) -> Interval:
    found = view.of(0)
    return replace(UNIT, nan=found.nan or not found.bounded)


def _log_softmax(view: NodeRanges) -> Interval:
    found = view.of(0)
    return Interval(low=-math.inf, high=0.0, nan=found.nan or not found.bounded)


def _leaky(view: NodeRanges) -> Interval:
    found, alpha = view.of(0), view.number("alpha", 0.01)
    return _sloped(found, _number(alpha))


def _prelu(view: NodeRanges) -> Interval:
    return _sloped(view.of(0), of_array(view.needed(1)))


def _sloped(found: Interval, slopes: Interval) -> Interval:
    """Negative values times ``slopes``, the others as they are."""
    parts = []
    if found.low < 0:
        parts.append(replace(found, high=min(found.high, 0.0)) * slopes)
    if found.high >= 0:
        parts.append(replace(found, low=max(found.low, 0.0)))
    return parts[0].hull(parts[-1])


def _bounded_below(least: float) -> Rule:
    """Functions that fall to ``least`` at most, and never rise above what they take, or 0."""

    def rule(view: NodeRanges) -> Interval:
        found = view.of(0)
        return Interval(
            low=least if found.low < 0 else 0.0, high=max(found.high, 0.0), nan=found.nan or found.low == -math.inf
        )

    return rule


def _elu(view: NodeRanges) -> Interval:
    found, alpha = view.of(0), view.number("alpha", 1.0)
    below = (_number(alpha) * Interval(low=-1.0, high=0.0)) if found.low < 0 else ZERO
    return Interval(low=min(below.low, max(found.low, 0.0)), high=max(found.high, below.high), nan=found.nan)


def _selu(view: NodeRanges) -> Interval:
    found, alpha, gamma = view.of(0), view.number("alpha", 1.6732632), view.number("gamma", 1.0507010)
    return Interval(low=-abs(alpha * gamma), high=max(found.high, 0.0) * abs(gamma), nan=found.nan)


def _clip(view: NodeRanges) -> Interval:
    found = view.of(0)
    low, high = view.number("min", -math.inf), view.number("max", math.inf)
    for index in (1, 2):
        if index < len(view.inputs) and view.inputs[index] is not None:
            bound = view.needed(index).reshape(-1)[0]
            low, high = (float(bound), high) if index == 1 else (low, float(bound))
    clipped = [min(max(bound, low), high) for bound in (found.low, found.high)]
    whole = found.whole and all(math.isinf(bound) or bound == int(bound) for bound in (low, high))
    return Interval(low=clipped[0], high=clipped[1], whole=whole, nan=found.nan)


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
    return replace(_sum(view) * _number(1 / len(view.given)), whole=False)


def _pow(view: NodeRanges) -> Interval:
    found, powers = view.of(0), of_array(view.needed(1))
    if powers.low != powers.high or powers.low not in (1.0, 2.0):
        raise NoRangeError
    if powers.low == 1.0:
        return found
    square = found * found
    return replace(square, low=0.0 if found.within_zero() else min(found.low**2, found.high**2))


def _bounded_wave(view: NodeRanges) -> Interval:
    found = view.of(0)
    return Interval(low=-1.0, high=1.0, nan=found.nan or not found.bounded)


def _sign(view: NodeRanges) -> Interval:
    found = view.of(0)
    return Interval(low=-1.0 if found.low < 0 else 0.0, high=1.0 if found.high > 0 else 0.0, whole=True, nan=found.nan)


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
    # Beyond what the type holds, runtimes give what they like.
    return found.limited(dtype)


def _one_hot(view: NodeRanges) -> Interval:
    return of_array(view.needed(2))


def _reduce_mean(view: NodeRanges) -> Interval:
    return replace(view.of(0), whole=False)


def _reduce_sum(view: NodeRanges) -> Interval:
    return view.of(0) * _number(_reduced(view))


def _reduced(view: NodeRanges) -> int:
    """How many values are put together. Raises NoRangeError where that follows the image."""
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
    return view.of(0).hull(_number(value))


def _average_pool(view: NodeRanges) -> Interval:
    found = replace(view.of(0), whole=False)
    return found.with_zero() if view.node.attributes.get_int("count_include_pad", 0) else found


def _max_unpool(view: NodeRanges) -> Interval:
    return view.of(0).with_zero()


def _resize(view: NodeRanges) -> Interval:
    found, mode = view.of(0), view.text("mode", "nearest")
    if view.text("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        found = found.hull(_number(view.number("extrapolation_value", 0.0)))
    if mode == "nearest":
        return found
    found = replace(found, whole=False, nan=found.nan or not found.bounded)
    if mode != "cubic":
        return found
    # The negative weights of a cubic along one axis add up to |a| / 4 at most; renormalised ones are given more room.
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
    """Rounded and clipped to the type that the zero point has."""
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
    """Instance, layer and group normalisation: by what is known of any normalised values, then scaled and shifted."""
    found = view.of(0)
    if found.nan or not found.within(-LARGEST_SQUARABLE, LARGEST_SQUARABLE):
        return UNKNOWN
    shifted = Interval(low=-LARGEST_NORMALISED, high=LARGEST_NORMALISED) * of_array(view.needed(1))
    return shifted + of_array(view.needed(2)) if len(view.given) > 2 else shifted


def _number(value: float) -> Interval:
    return Interval(low=value, high=value, whole=float(value).is_integer())


def _constant_of_shape(view: NodeRanges) -> Interval:
    given = view.node.attributes.get("value")
    return of_array(np.asarray(given.value.numpy())) if given is not None else ZERO


Array = NDArray[np.generic]

RULES: dict[str, Rule] = {
    **WEIGHTED,
    **dict.fromkeys(BOOLEAN, _boolean),
    "Abs": _abs,
    "Add": lambda view: view.of(0) + view.of(1),
    "ArgMax": _arg_max,
    "ArgMin": _arg_max,
    "AveragePool": _average_pool,
    "Cast": _cast,
    "Ceil": _round_to_integer(math.ceil),
    "Celu": _elu,
    "Clip": _clip,
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Cos": _bounded_wave,
    "DequantizeLinear": _dequantize,
    "Div": _div,
    "Elu": _elu,
    "Erf": _rising(math.erf),
    "Exp": _rising(_exp),
    "Floor": _round_to_integer(math.floor),
    "Gelu": _bounded_below(-0.2),
    "GlobalAveragePool": _reduce_mean,
    "GroupNormalization": _normalized,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _bounded_below(-0.375),
    "InstanceNormalization": _normalized,
    "LayerNormalization": _normalized,
    "LeakyRelu": _leaky,
    "Log": _log,
    "LogSoftmax": _log_softmax,
    "Max": _extreme(max),
    "MaxPool": lambda view: view.of(0),
    "MaxUnpool": _max_unpool,
    "Mean": _mean,
    "Min": _extreme(min),
    "Mish": _bounded_below(-0.31),
    "Mod": _mod,
    "Mul": lambda view: view.of(0) * view.of(1),
    "Neg": lambda view: -view.of(0),
    "OneHot": _one_hot,
    "PRelu": _prelu,
    "Pad": _pad,
    "Pow": _pow,
    "QuantizeLinear": _quantize,
    "Reciprocal": lambda view: _number(1.0) / view.of(0),
    "ReduceMean": _reduce_mean,
    "ReduceSum": _reduce_sum,
    "Relu": _rising(lambda bound: max(bound, 0.0)),
    "Resize": _resize,
    "Round": _round_to_integer(round),
    "Selu": _selu,
    "Sigmoid": _rising(_sigmoid),
    "Sign": _sign,
    "Sin": _bounded_wave,
    "Softmax": _softmax,
    "Softplus": _rising(_softplus),
    "Softsign": _rising(lambda bound: math.copysign(1.0, bound) if math.isinf(bound) else bound / (1 + abs(bound))),
    "Sqrt": _sqrt,
    "Sub": lambda view: view.of(0) - view.of(1),
    "Sum": _sum,
    "Tanh": _rising(math.tanh),
    "Upsample": _resize,
    "Where": _where,
}
