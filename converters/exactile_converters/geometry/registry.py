"""Register a rule for each operator. An operator without a rule is an obstacle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from exactile_converters.geometry.node_view import Label, Labels, NodeView
from exactile_converters.geometry.reach import Reach, Same


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """How the outputs of a node depend on one of its feature-map operands: a reach for each spatial axis.

    ``reflected`` counts the pixels, before and after, that reflection puts beyond the operand's own edges: there the
    first pixels depend on later ones, so that even the smallest tile must hold one pixel more than is reflected.
    """

    operand: int
    reach: Mapping[Label, Reach] = field(default_factory=dict)
    reflected: Mapping[Label, tuple[int, int]] = field(default_factory=dict)

    def along(self, axis: Label) -> Reach:
        return self.reach.get(axis, Same())


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """A rule's result for a node: the labels of its outputs, and a flow for each feature-map operand.

    ``positions`` are operands computed from the image's size and not from its pixels: a tile gets its piece of the
    whole image's. ``masks`` are such operands that are the same everywhere but at the far edges, which a tile computes
    for its own size. ``shift`` is that of a cyclic shift: along an axis, result ``i`` is entry ``i + shift``, counted
    around the edge. Rules assume masks and shifts, and ``shifted_windows`` checks them.
    """

    labels: tuple[Labels, ...]
    flows: tuple[Flow, ...]
    positions: tuple[int, ...] = ()
    masks: tuple[int, ...] = ()
    shift: tuple[Label, int] | None = None


Rule = Callable[[NodeView], Transfer]

_RULES: dict[tuple[str, str], Rule] = {}


def rule(*operators: str, domain: str = "") -> Callable[[Rule], Rule]:
    """Register a rule for operators of a domain, by default that of ONNX."""

    def register(function: Rule) -> Rule:
        for operator in operators:
            if (domain, operator) in _RULES:
                raise ValueError(f"two rules for {operator}")
            _RULES[domain, operator] = function
        return function

    return register


def find_rule(domain: str, operator: str) -> Rule | None:
    """Return the rule for an operator; None if there is none."""
    return _RULES.get(("" if domain == "ai.onnx" else domain, operator))
