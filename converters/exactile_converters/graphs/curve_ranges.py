"""Ranges of functions of one number: activations, roundings, logarithms."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

from exactile_converters.graphs.interval import UNIT, ZERO, Interval, of_array, of_number
from exactile_converters.graphs.node_ranges import NodeRanges, NoRangeError

Rule = Callable[[NodeRanges], Interval]

LEAST_OF_GELU = -0.2
LEAST_OF_SWISH = -0.2785


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
    scaled = found * of_number(alpha) + of_number(beta)
    return replace(scaled, low=min(max(scaled.low, 0.0), 1.0), high=min(max(scaled.high, 0.0), 1.0), nan=found.nan)


def _softmax(view: NodeRanges) -> Interval:
    found = view.of(0)
    return replace(UNIT, nan=found.nan or not found.bounded)


def _log_softmax(view: NodeRanges) -> Interval:
    found = view.of(0)
    return Interval(low=-math.inf, high=0.0, nan=found.nan or not found.bounded)


def _leaky(view: NodeRanges) -> Interval:
    found, alpha = view.of(0), view.number("alpha", 0.01)
    return _sloped(found, of_number(alpha))


def _prelu(view: NodeRanges) -> Interval:
    return _sloped(view.of(0), of_array(view.needed(1)))


def _sloped(found: Interval, slopes: Interval) -> Interval:
    """Multiply negative values by ``slopes``; keep the others."""
    parts = []
    if found.low < 0:
        parts.append(replace(found, high=min(found.high, 0.0)) * slopes)
    if found.high >= 0:
        parts.append(replace(found, low=max(found.low, 0.0)))
    return parts[0].hull(parts[-1])


def _bounded_below(least: float) -> Rule:
    """Return the rule of functions that are at least ``least``, and at most the larger of their argument and 0."""
    return lambda view: _fallen(view.of(0), least)


def _fallen(found: Interval, least: float) -> Interval:
    return Interval(
        low=least if found.low < 0 else 0.0, high=max(found.high, 0.0), nan=found.nan or found.low == -math.inf
    )


def _elu(view: NodeRanges) -> Interval:
    found, alpha = view.of(0), view.number("alpha", 1.0)
    below = (of_number(alpha) * Interval(low=-1.0, high=0.0)) if found.low < 0 else ZERO
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


def _bounded_wave(view: NodeRanges) -> Interval:
    found = view.of(0)
    return Interval(low=-1.0, high=1.0, nan=found.nan or not found.bounded)


def _sign(view: NodeRanges) -> Interval:
    found = view.of(0)
    return Interval(low=-1.0 if found.low < 0 else 0.0, high=1.0 if found.high > 0 else 0.0, whole=True, nan=found.nan)


def _gelu(view: NodeRanges) -> Interval:
    """Return the range for the sum of a map and a bias, if there is one."""
    total = view.given[0]
    for bias in view.given[1:]:
        total = total + bias
    return _fallen(total, LEAST_OF_GELU)


def _quick_gelu(view: NodeRanges) -> Interval:
    """Return the range; its least value is that of ``x * sigmoid(x)``, divided by alpha."""
    alpha = view.number("alpha", 1.702)
    if alpha <= 0:
        raise NoRangeError
    return _fallen(view.of(0), LEAST_OF_SWISH / alpha)


CURVES: Mapping[str, Rule] = {
    "Abs": _abs,
    "BiasGelu": _gelu,
    "Ceil": _round_to_integer(math.ceil),
    "Celu": _elu,
    "Clip": _clip,
    "Cos": _bounded_wave,
    "Elu": _elu,
    "Erf": _rising(math.erf),
    "Exp": _rising(_exp),
    "FastGelu": _gelu,
    "Floor": _round_to_integer(math.floor),
    "Gelu": _gelu,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _bounded_below(-0.375),
    "LeakyRelu": _leaky,
    "Log": _log,
    "LogSoftmax": _log_softmax,
    "Mish": _bounded_below(-0.31),
    "PRelu": _prelu,
    "QuickGelu": _quick_gelu,
    "Relu": _rising(lambda bound: max(bound, 0.0)),
    "Round": _round_to_integer(round),
    "Selu": _selu,
    "Sigmoid": _rising(_sigmoid),
    "Sign": _sign,
    "Sin": _bounded_wave,
    "Softmax": _softmax,
    "Softplus": _rising(_softplus),
    "Softsign": _rising(lambda bound: math.copysign(1.0, bound) if math.isinf(bound) else bound / (1 + abs(bound))),
    "Sqrt": _sqrt,
    "Tanh": _rising(math.tanh),
}
