"""Sizes and positions of maps, as functions of the image's: numbers, and nodes that compute them in a graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from exactile_converters.placed.place import Nodes


@dataclass(frozen=True, slots=True)
class MapLine:
    """A map has ``size * scale + constant`` rows (or columns) for an image of ``size`` pixels.

    ``constants`` holds the constant by ``size`` modulo ``stride``, for sizes that the network accepts.
    """

    scale: Fraction
    stride: int
    constants: Mapping[int, Fraction]

    def table(self) -> NDArray[np.int64]:
        """Return the constants times the scale's denominator, by remainder; 0 for refused sizes."""
        denominator = self.scale.denominator
        return np.array([int(self.constants.get(i, Fraction(0)) * denominator) for i in range(self.stride)], np.int64)


@dataclass(slots=True)
class Arithmetic:
    """Adds nodes that compute sizes: int64 of shape (1,). Each value is computed only once."""

    nodes: Nodes
    _made: dict[tuple[object, ...], str] = field(default_factory=dict)

    def number(self, value: int) -> str:
        return self._once(("number", value), lambda: self.nodes.constant(np.array([value], np.int64)))

    def plus(self, value: str, more: int) -> str:
        if more == 0:
            return value
        return self._once(("plus", value, more), lambda: self.nodes.add("Add", [value, self.number(more)]))

    def scaled(self, value: str, scale: Fraction) -> str:
        """Return ``value`` times ``scale``, which must be an integer."""
        return self._once(("scaled", value, scale), lambda: self._divided(self._times(value, scale), scale))

    def size(self, value: str, line: MapLine) -> str:
        """Return the size of a map for an image of ``value`` pixels."""
        key = ("size", value, line.scale, line.stride, line.table().tobytes())

        def make() -> str:
            table = line.table()
            if (table == table[0]).all():
                shift = self.number(int(table[0]))
            else:
                remainder = self.nodes.add("Mod", [value, self.number(line.stride)])
                shift = self.nodes.add("Gather", [self.nodes.constant(table), remainder], axis=0)
            return self._divided(self.nodes.add("Add", [self._times(value, line.scale), shift]), line.scale)

        return self._once(key, make)

    def entry(self, vector: str, index: int) -> str:
        """Return one entry of a vector."""
        return self._once(
            ("entry", vector, index),
            lambda: self.nodes.add("Slice", [vector, self.number(index), self.number(index + 1)]),
        )

    def length(self, tensor: str, dim: int) -> str:
        """Return the size of a dimension."""
        return self._once(("length", tensor, dim), lambda: self.entry(self._shape(tensor), dim))

    def _shape(self, tensor: str) -> str:
        return self._once(("shape", tensor), lambda: self.nodes.add("Shape", [tensor]))

    def _times(self, value: str, scale: Fraction) -> str:
        if scale.numerator == 1:
            return value
        return self.nodes.add("Mul", [value, self.number(scale.numerator)])

    def _divided(self, value: str, scale: Fraction) -> str:
        if scale.denominator == 1:
            return value
        return self.nodes.add("Div", [value, self.number(scale.denominator)])

    def _once(self, key: tuple[object, ...], make: Callable[[], str]) -> str:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]
