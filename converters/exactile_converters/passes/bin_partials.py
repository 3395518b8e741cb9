"""Partial statistics of bins: for each bin, the pixels of the zone that lie in it, and their sum or maximum.

Bins are those of the whole map, so the graph gets its tile's position as an input. Sums along a row are computed in
float32, sums of rows in float64.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from exactile_converters.geometry.node_view import SPATIAL, Label
from exactile_converters.graphs.builder import Builder
from exactile_converters.passes.reductions import Reduction
from exactile_converters.passes.taking import AXES_BY_INPUT
from exactile_converters.placed.lines import MapLine

FLOAT, DOUBLE = ir.DataType.FLOAT, ir.DataType.DOUBLE
ROWS, COLUMNS = 2, 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Within:
    """Where the zone's part of a map lies along an axis; names are of int64 (1,).

    ``first`` is the part's first entry in the tile's map; ``position`` is the graph's input for the tile's position,
    and ``line`` how the whole map grows.
    """

    first: ir.Value
    position: ir.Value
    line: MapLine


def bin_parts(
    build: Builder, reduction: Reduction, part: ir.Value, within: Mapping[Label, Within], opset: int
) -> list[ir.Value]:
    """Return a statistic of bins, float64: the pixels of each bin, then for each channel the value of each bin.

    ``part`` is the zone's part of the map, (1, C, H, W) float32.
    """
    rows, columns = (
        _masks(build, part, dim, within[axis], count)
        for dim, axis, count in zip((ROWS, COLUMNS), SPATIAL, reduction.grid, strict=True)
    )
    counts = [
        _reduced(build, "ReduceSum", build.add("Cast", one, to=DOUBLE.value), 1, opset) for one in (rows, columns)
    ]
    pixels = build.add("Mul", counts[0], build.add("Reshape", counts[1], build.axes(1, -1)))
    operator, nothing = ("ReduceSum", 0.0) if reduction.kind == "mean" else ("ReduceMax", -np.inf)
    found, height, width = part, reduction.grid[0], reduction.grid[1]
    for dim, masks, count in ((COLUMNS, columns, width), (ROWS, rows, height)):
        outside = build.constant(np.array(nothing, np.float32 if dim == COLUMNS else np.float64))
        found = _each_bin(build, found, masks, dim, count, operator, outside, opset)
        if dim == COLUMNS:
            found = build.add("Cast", found, to=DOUBLE.value)
    return [build.add("Reshape", pixels, build.axes(-1)), build.add("Reshape", found, build.axes(-1))]


def _masks(build: Builder, part: ir.Value, dim: int, within: Within, count: int) -> ir.Value:
    """Return a (count, n) bool array: which of the part's n entries lie in which bin of the whole map."""
    which = dim - ROWS
    number = build.axes
    zero, one = (build.constant(np.array(value, np.int64)) for value in (0, 1))
    entries = build.add("Gather", build.add("Shape", part), build.constant(np.array(dim, np.int64)), axis=0)
    tile, whole = (build.add("Gather", within.position, number(2 * which + more), axis=0) for more in (0, 1))
    scale = within.line.scale
    begin = build.add("Div", build.add("Mul", tile, number(scale.numerator)), number(scale.denominator))
    begin = build.add("Add", begin, within.first)
    at = build.add("Add", build.add("Range", zero, entries, one), begin)
    length = _length(build, whole, within.line)
    index = build.constant(np.arange(count, dtype=np.int64)[:, None])
    bins = number(count)
    after = build.add("Less", build.add("Mul", index, length), build.add("Mul", build.add("Add", at, number(1)), bins))
    next_index = build.constant(np.arange(1, count + 1, dtype=np.int64)[:, None])
    before = build.add("Less", build.add("Mul", at, bins), build.add("Mul", next_index, length))
    return build.add("And", after, before)


def _length(build: Builder, whole: ir.Value, line: MapLine) -> ir.Value:
    """Return the length of the whole map, for an image of ``whole`` pixels."""
    remainder = build.add("Mod", whole, build.axes(line.stride))
    shift = build.add("Gather", build.constant(line.table()), remainder, axis=0)
    grown = build.add("Add", build.add("Mul", whole, build.axes(line.scale.numerator)), shift)
    return build.add("Div", grown, build.axes(line.scale.denominator))


def _each_bin(
    build: Builder,
    value: ir.Value,
    masks: ir.Value,
    dim: int,
    count: int,
    operator: str,
    outside: ir.Value,
    opset: int,
) -> ir.Value:
    """Reduce each bin along ``dim``."""
    along = build.axes(-1, 1) if dim == ROWS else build.axes(-1)
    parts = []
    for index in range(count):
        mask = build.add("Reshape", build.add("Gather", masks, build.axes(index), axis=0), along)
        parts.append(_reduced(build, operator, build.add("Where", mask, value, outside), dim, opset))
    return build.add("Concat", *parts, axis=dim)


def _reduced(build: Builder, operator: str, value: ir.Value, dim: int, opset: int) -> ir.Value:
    if operator == "ReduceSum" or opset >= AXES_BY_INPUT:
        return build.add(operator, value, build.axes(dim), keepdims=1)
    return build.add(operator, value, axes=[dim], keepdims=1)
