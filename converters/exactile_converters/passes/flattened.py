"""Give flattened maps rows and columns again: statistics are taken of parts of rows and columns."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from exactile_converters.geometry.feature_maps import FeatureMap
from exactile_converters.geometry.node_view import SPATIAL, Label, Labels
from exactile_converters.passes.taking import Written

SUFFIX = "_in_rows"


def rows_of(value: ir.Value) -> ir.Value | None:
    """Return the value that ``in_rows`` made of ``value`` earlier."""
    for user, _ in value.uses():
        if user.graph is not None and user.op_type == "Reshape" and user.outputs[0].name == f"{value.name}{SUFFIX}":
            return user.outputs[0]
    return None


def with_two_axes(labels: Labels) -> Labels:
    """Return ``labels`` with rows and columns in place of one flattened axis."""
    parts: list[tuple[Label, ...]] = [SPATIAL if label == "yx" else (label,) for label in labels]
    return tuple(label for part in parts for label in part)


def in_rows(
    node: ir.Node, value: ir.Value, feature: FeatureMap, features: Mapping[str, FeatureMap]
) -> tuple[list[ir.Node], ir.Value] | None:
    """Return ``value``, an operand of ``node``, with rows and columns; None where no map shows how many there are."""
    known = rows_of(value)
    if known is not None:
        return [], known
    source = _as_large(value, feature, features)
    if source is None:
        return None
    written, labels = Written(node), features[source.name or ""].labels
    places = written.constant([labels.index(axis) for axis in SPATIAL], np.int64)
    lengths = written.add("Gather", written.add("Shape", source), places, axis=0)
    at = feature.labels.index("yx")
    before, behind = feature.shape[:at], feature.shape[at + 1 :]
    sizes = [written.constant(part, np.int64) if part else None for part in (before, behind)]
    parts = [part for part in (sizes[0], lengths, sizes[1]) if part is not None]
    made = written.add("Reshape", value, written.add("Concat", *parts, axis=0))
    made.name, made.type = f"{value.name}{SUFFIX}", value.type
    return written.nodes, made


def _as_large(value: ir.Value, feature: FeatureMap, features: Mapping[str, FeatureMap]) -> ir.Value | None:
    """Return a map with as many rows and columns as ``value``, from which ``value`` is computed."""
    seen: set[ir.Value] = set()
    stack = [value]
    while stack:
        one = stack.pop()
        found = features.get(one.name or "")
        if found is None or one in seen:
            continue
        seen.add(one)
        alike = (found.scale, found.constant) == (feature.scale, feature.constant)
        if alike and all(axis in found.labels for axis in SPATIAL):
            return one
        maker = one.producer()
        stack.extend(operand for operand in (maker.inputs if maker is not None else ()) if operand is not None)
    return None
