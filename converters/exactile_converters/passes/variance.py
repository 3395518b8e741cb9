"""Recognise variances that a network computes by two means, one after the other.

1. ``mean((x - m)^2)``: the mean of squared deviations from a mean ``m``.
2. ``mean(x^2) - m^2``: the mean of squares minus the squared mean. Both are one statistic, so that the digits that the
   difference would lose are kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from exactile.contract.statistic import PREFIX


@dataclass(frozen=True, slots=True, kw_only=True)
class AboutMean:
    """The variance ``result`` of ``of`` about ``mean``; None where the mean must be found first.

    ``less`` says that it is case 2, where the mean has the shape of the variance.
    """

    of: ir.Value
    mean: ir.Value | None
    result: ir.Value
    less: bool = False


def variance_about_mean(node: ir.Node) -> AboutMean | None:
    """Return the variance that ``node``, a mean, is part of. The caller checks that ``mean`` is one of the same map."""
    root = squared(node.inputs[0])
    if root is None:
        return None
    distance = root.producer()
    if distance is not None and distance.op_type == "Sub":
        left, right = distance.inputs
        if left is not None and right is not None:
            of, mean = (left, right) if right.const_value is not None else (right, left)
            return AboutMean(of=of, mean=mean, result=node.outputs[0])
    return _less_squared_mean(node, root)


def squared(value: ir.Value | None) -> ir.Value | None:
    """Return x, where ``value`` is x * x or x^2."""
    maker = value.producer() if value is not None else None
    if maker is None or maker.domain or maker.op_type not in {"Mul", "Pow"}:
        return None
    first, second = maker.inputs
    if maker.op_type == "Mul":
        return first if first is second else None
    return first if _number(second) == 2 else None


def _less_squared_mean(node: ir.Node, root: ir.Value) -> AboutMean | None:
    """Match case 2, where ``node`` is the mean of the squares of ``root``."""
    for user, place in node.outputs[0].uses():
        mean = squared(user.inputs[1]) if user.op_type == "Sub" and not user.domain and place == 0 else None
        made = user.outputs[0]
        if mean is None or not (made.uses() or made.is_graph_output()):  # not those that were replaced
            continue
        if (mean.name or "").startswith(PREFIX):
            return AboutMean(of=root, mean=mean, result=made, less=True)
        maker = mean.producer()
        if maker is not None and maker.op_type == node.op_type and maker.inputs[0] is root and _alike(maker, node):
            return AboutMean(of=root, mean=None, result=made, less=True)
    return None


def _alike(first: ir.Node, second: ir.Node) -> bool:
    """Return whether two reductions have the same axes, and both keep them or both do not."""
    return all(_axes(first, name) == _axes(second, name) for name in ("axes", "keepdims", "noop_with_empty_axes"))


def _axes(node: ir.Node, name: str) -> object:
    if name == "axes" and len(node.inputs) > 1:
        constant = node.inputs[1].const_value if node.inputs[1] is not None else None
        return None if constant is None else sorted(int(axis) for axis in constant.numpy().ravel())
    attribute = node.attributes.get(name)
    if attribute is None:
        return 1 if name == "keepdims" else 0
    return sorted(attribute.as_ints()) if name == "axes" else attribute.as_int()


def _number(value: ir.Value | None) -> float | None:
    constant = value.const_value if value is not None else None
    if constant is None:
        return None
    array = constant.numpy()
    return float(array.ravel()[0]) if array.size == 1 else None
