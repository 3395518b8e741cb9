"""Infer what a floating-point output is: probabilities, their logarithms, or scores that still need an activation.

The range of the output, and the operators that compute it, decide.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import onnx_ir as ir

from exactile.contract import Activation
from exactile.errors import OptionError
from exactile_converters.geometry.feature_maps import FeatureMap
from exactile_converters.graphs.interval import Interval
from exactile_converters.graphs.node_ranges import constant_of

Step = Literal["none", "sigmoid", "softmax", "exp"]
"""What exactile applies to the output to obtain probabilities."""

ROUNDING = 1e-4
"""Probabilities may lie outside 0 to 1 by this much: sums in float32, and 8-bit steps."""

MOVES = frozenset("Identity Transpose Cast Squeeze Unsqueeze Reshape Dropout DepthToSpace SpaceToDepth Expand".split())
RESAMPLES = frozenset("Resize Upsample AveragePool MaxPool Pad QuantizeLinear DequantizeLinear".split())
CHOOSES = frozenset("Slice Split Gather".split())
SCORES = frozenset("Conv ConvTranspose MatMul Gemm BatchNormalization QLinearConv".split())
LINEAR = frozenset("Add Sub Sum Mul Div Concat Where".split())


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """``step`` turns the output into probabilities. ``because`` says why, ``sure`` whether the graph proves it.

    ``exclusive``: the channels are classes, of which each pixel has one.
    """

    step: Step
    because: str
    sure: bool = True
    exclusive: bool = True


def find_meaning(
    value: ir.Value,
    ranges: Mapping[str, Interval],
    features: Mapping[str, FeatureMap],
    channels: int,
    asked: Activation | None,
) -> Meaning:
    """Return the meaning of ``value``, or the one that was ``asked`` for. Raises OptionError."""
    if asked == "softmax" and channels == 1:
        raise OptionError("--activation softmax is over several channels, and the output has one; use sigmoid or none")
    softmax = _ends_in(value, {"Softmax", "QLinearSoftmax"}, features)
    if asked is not None:
        exclusive = asked == "softmax" or (asked == "none" and softmax)
        return Meaning(step=asked, because="as asked for with --activation", exclusive=exclusive or channels == 1)
    found = ranges[value.name or ""]
    if found.within(0.0, 1.0, slack=ROUNDING):
        return Meaning(step="none", because="its range is within 0 to 1", exclusive=softmax or channels == 1)
    step: Step = "sigmoid" if channels == 1 else "softmax"
    if found.high <= ROUNDING and _is_logarithm(value, ranges):
        return Meaning(step="exp", because="it is a logarithm of probabilities")
    if _is_score(value, ranges, features):
        return Meaning(step=step, because="it is a weighted sum, of a range beyond 0 to 1")
    return Meaning(step=step, because="its range is not known to be within 0 to 1", sure=False)


def doubt_of(meaning: Meaning, *, channels: int, classes: bool) -> str:
    """Return the doubt to report where the graph does not prove the meaning; empty if there is none.

    ``classes``: the channel with the largest value becomes the label.
    """
    if classes and channels > 1:
        if meaning.exclusive:
            return ""
        return (
            f"the {channels} channels of the output are not known to be exclusive classes (no softmax over them); each "
            "pixel gets the one with the largest value. To keep each channel's own 0 or 1, use --output multilabel"
        )
    if meaning.sure:
        return ""
    return (
        f"the graph does not tell whether the output holds probabilities; it is taken for scores, before a "
        f"{meaning.step}. If it holds probabilities, use --activation none; if not, use --activation {meaning.step}"
    )


def for_planes(meaning: Meaning) -> Meaning:
    """Return the meaning for planes that are not exclusive: each score becomes a probability separately."""
    return replace(meaning, step="sigmoid") if meaning.step == "softmax" else meaning


def _ends_in(value: ir.Value, operators: set[str], features: Mapping[str, FeatureMap]) -> bool:
    """Return whether ``value`` is the result of one of ``operators`` over the channels, at most moved and resampled."""
    node = _maker(value, MOVES | RESAMPLES)
    if node is None or node.op_type not in operators:
        return False
    feature = features.get(node.outputs[0].name or "")
    axis = node.attributes.get_int("axis", -1)
    return feature is None or feature.labels[axis] == "c"


def _maker(value: ir.Value, passed: frozenset[str]) -> ir.Node | None:
    node = value.producer()
    while node is not None and node.op_type in passed:
        source = node.inputs[0]
        node = source.producer() if source is not None else None
    return node


def _is_logarithm(value: ir.Value, ranges: Mapping[str, Interval]) -> bool:
    node = _maker(value, MOVES | CHOOSES)
    if node is None:
        return False
    source = node.inputs[0]
    if node.op_type == "Log" and source is not None:
        return ranges[source.name or ""].within(0.0, 1.0, slack=ROUNDING)
    if node.op_type == "Neg" and source is not None:
        inner = source.producer()
        return inner is not None and inner.op_type == "Softplus"
    return node.op_type == "LogSoftmax"


def _is_score(value: ir.Value, ranges: Mapping[str, Interval], features: Mapping[str, FeatureMap]) -> bool:
    """Return whether ``value`` is a weighted sum that may well be below 0 and above 1."""
    node = _maker(value, MOVES | RESAMPLES | CHOOSES)
    if node is None:
        return False
    if node.op_type in SCORES:
        found = ranges[node.outputs[0].name or ""]
        source = node.inputs[0]
        taken = ranges.get(source.name or "") if source is not None else None
        averaged = taken is not None and taken.within(0.0, 1.0, slack=ROUNDING) and found.low >= -ROUNDING
        return found.low < -ROUNDING and found.high > 1 + ROUNDING and not averaged
    if node.op_type in LINEAR:
        parts = node.inputs[1:] if node.op_type == "Where" else node.inputs
        moving = [part for part in parts if part is not None and constant_of(part) is None]
        return bool(moving) and all(_is_score(part, ranges, features) for part in moving)
    return False
