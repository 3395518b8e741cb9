"""Arithmetic on short vectors as graph nodes, with operators that every opset from 11 has."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from exactile_converters.placed.place import Nodes


@dataclass(frozen=True, slots=True)
class Formula:
    """Each method adds one or two nodes and returns the name of the result. Nothing is rounded except by its type."""

    nodes: Nodes

    def real(self, value: float) -> str:
        """Add a float32 constant of shape (1,)."""
        return self.nodes.constant(np.array([value], np.float32))

    def whole(self, value: int) -> str:
        """Add an int64 constant of shape (1,)."""
        return self.nodes.constant(np.array([value], np.int64))

    def plus(self, left: str, right: str) -> str:
        return self.nodes.add("Add", [left, right])

    def minus(self, left: str, right: str) -> str:
        return self.nodes.add("Sub", [left, right])

    def times(self, left: str, right: str) -> str:
        return self.nodes.add("Mul", [left, right])

    def over(self, left: str, right: str) -> str:
        return self.nodes.add("Div", [left, right])

    def floor(self, value: str) -> str:
        return self.nodes.add("Floor", [value])

    def ceiling(self, value: str) -> str:
        return self.nodes.add("Ceil", [value])

    def magnitude(self, value: str) -> str:
        return self.nodes.add("Abs", [value])

    def as_real(self, value: str) -> str:
        return self.nodes.add("Cast", [value], to=TensorProto.FLOAT)

    def as_double(self, value: str) -> str:
        return self.nodes.add("Cast", [value], to=TensorProto.DOUBLE)

    def as_whole(self, value: str) -> str:
        """Cast to int64; fractions are truncated towards zero."""
        return self.nodes.add("Cast", [value], to=TensorProto.INT64)

    def less(self, left: str, right: str) -> str:
        return self.nodes.add("Less", [left, right])

    def equal(self, left: str, right: str) -> str:
        return self.nodes.add("Equal", [left, right])

    def both(self, left: str, right: str) -> str:
        return self.nodes.add("And", [left, right])

    def either(self, left: str, right: str) -> str:
        return self.nodes.add("Or", [left, right])

    def choose(self, condition: str, chosen: str, otherwise: str) -> str:
        return self.nodes.add("Where", [condition, chosen, otherwise])

    def between(self, value: str, least: str, most: str) -> str:
        """Clip ``value`` to the two bounds. Max and Min of int64 came later than opset 11."""
        raised = self.choose(self.less(value, least), least, value)
        return self.choose(self.less(most, raised), most, raised)

    def scalar(self, value: str) -> str:
        """Reshape a value of shape (1,) to a scalar."""
        return self.nodes.add("Reshape", [value, self.nodes.constant(np.zeros(0, np.int64))])

    def counted(self, count: str) -> str:
        """Return the int64 numbers from 0 to before ``count``, of shape (1,)."""
        zero, one = self.scalar(self.whole(0)), self.scalar(self.whole(1))
        return self.nodes.add("Range", [zero, self.scalar(count), one])
