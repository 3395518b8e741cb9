"""Infer shapes past operands that do not fit each other, as if the constant fitted.

A position embedding that is stored for one image size stops shape inference at the first Add, and what follows, such as
attention, stays unknown. So element-wise operators that fail get the shape of their largest operand.
"""

from __future__ import annotations

import math
from typing import Any

import onnx_ir as ir

from exactile_converters.geometry.fact import Fact
from exactile_converters.geometry.probe import Probe, not_regrouped
from exactile_converters.geometry.rules.pixelwise import BROADCASTING


class LenientProbe(Probe):
    """A probe whose ``doubtful`` values, by name, follow a failure that this assumption does not repair."""

    def __init__(self, *graph: Any, **options: Any) -> None:
        self.doubtful: set[str] = set()
        super().__init__(*graph, **options)

    def visit(self, node: ir.Node) -> None:
        """Find the facts of what ``node`` computes, or would compute."""
        super().visit(node)
        if node in self.failures and node.op_type in BROADCASTING:
            self._assume(node)
        if not_regrouped(node, self) or any(value is not None and value.name in self.doubtful for value in node.inputs):
            self.doubtful.update(value.name for value in node.outputs if value.name)

    def sure_shape(self, value: ir.Value | None) -> tuple[int, ...] | None:
        """Return the shape of ``value``; None where it is unknown or doubtful."""
        fact = self.of(value)
        return None if fact is None or value is None or value.name in self.doubtful else fact.shape

    def _assume(self, node: ir.Node) -> None:
        facts = [fact for value in node.inputs if (fact := self.of(value)) is not None and fact.shape is not None]
        if facts:
            largest = max(facts, key=lambda fact: math.prod(fact.shape or ()))
            self.facts.update((out.name, Fact(largest.dtype, largest.shape)) for out in node.outputs if out.name)
