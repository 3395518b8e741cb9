"""Masks: constants that follow the image's size, and are the same anywhere but at the far edges.

Networks that shift their maps cyclically mask attention between what the shift brought together from opposite edges.
Such a mask is zero but in the last row and the last column of windows. A tile computes it for its own size. That is
right where the tile ends with the image; and where it does not, its last windows are of no use anyway, since they read
beyond it. Both is looked at here: at several sizes, what the mask holds depends on nothing but whether a place is the
last one; and the last place reads more of the image than a tile holds that ends there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from exactile.geometry import Span
from exactile_converters.geometry.feature_maps import FeatureMap, ForwardWalk
from exactile_converters.geometry.node_view import SPATIAL, Label, Labels, is_spatial
from exactile_converters.geometry.obstacle import Obstacle
from exactile_converters.geometry.probe import Probe
from exactile_converters.geometry.rules.pixelwise import varies_along

Place = tuple[int, int]
Needed = Callable[[FeatureMap, Label], Mapping[str, Span]]
"""What one stride of a map needs of each map before it, along an axis."""

Kind = tuple[bool, bool]
"""Whether a place is the last one along y, and along x."""


def check_masks(walk: ForwardWalk, nodes: Sequence[ir.Node], probes: Mapping[Place, Probe], needed: Needed) -> None:
    """Add an obstacle for every node with a mask that is none. ``probes`` are of images of several sizes."""
    for node in nodes:
        transfer = walk.transfers.get(node)
        for index in transfer.masks if transfer is not None else ():
            feature = walk.features[node.outputs[0].name or ""]
            value = node.inputs[index]
            assert value is not None
            axes = _edges(feature, value, probes)
            image = next(iter(walk.features))
            if axes is None or not all(_reads_on(walk, feature, needed(feature, axis)[image], axis) for axis in axes):
                label = next(label for label in feature.labels if is_spatial(label))
                error = varies_along(label)
                walk.obstacles.append(
                    Obstacle(node=node.name or feature.name, op=node.op_type, reason=error.reason, remedy=error.remedy)
                )


def made_for_masks(walk: ForwardWalk, nodes: Sequence[ir.Node]) -> set[ir.Node]:
    """The nodes whose results have a part in masks and cyclic shifts alone; others may ask for their shapes."""
    found: set[ir.Node] = set()
    inside = {node for node in nodes if node.op_type not in {"Shape", "Size"}}
    for node in reversed(nodes):
        uses = [use for value in node.outputs for use in value.uses() if use.node in inside]
        if node in walk.transfers or not uses or any(value.is_graph_output() for value in node.outputs):
            continue
        if all(use.node in found or _is_for_mask(walk, use.node, use.idx) for use in uses):
            found.add(node)
    return found


def _is_for_mask(walk: ForwardWalk, node: ir.Node, index: int) -> bool:
    transfer = walk.transfers.get(node)
    return transfer is not None and (index in transfer.masks or (transfer.shift is not None and index == 1))


def _reads_on(walk: ForwardWalk, feature: FeatureMap, span: Span, axis: Label) -> bool:
    """Whether the last place of ``feature`` reads beyond the end of a tile of one stride; ``span`` is what all read."""
    return span.stop > walk.stride(axis) - feature.constant[axis] / feature.scale[axis]


def _edges(feature: FeatureMap, value: ir.Value, probes: Mapping[Place, Probe]) -> set[Label] | None:
    """The axes at whose far end the mask ``value`` is another one; None where it is no mask."""
    kinds: dict[Kind, NDArray[Any]] = {}
    for place, probe in probes.items():
        fact = probe.of(value)
        spread = _by_place(feature, place, fact.value) if fact is not None and fact.value is not None else None
        if spread is None:
            return None
        for kind in product((False, True), repeat=2):
            entries = _of_kind(spread, kind)
            if len(entries) and not _all_same(kinds.setdefault(kind, entries[0]), entries):
                return None
    return {
        axis
        for at, axis in enumerate(SPATIAL)
        for kind, entry in kinds.items()
        if kind[at] and (inner := kinds.get((False, kind[1]) if at == 0 else (kind[0], False))) is not None
        if not _same(entry, inner)
    }


def _same(one: NDArray[Any], other: NDArray[Any]) -> bool:
    return np.array_equal(one, other, equal_nan=one.dtype.kind == "f")


def _all_same(one: NDArray[Any], entries: NDArray[Any]) -> bool:
    return one.shape == entries.shape[1:] and _same(np.broadcast_to(one, entries.shape), entries)


def _of_kind(spread: NDArray[Any], kind: Kind) -> NDArray[Any]:
    """What a mask holds for all places of a kind, one after another."""
    rows, columns = (
        slice(size - 1, size) if last else slice(0, size - 1) for last, size in zip(kind, spread.shape, strict=False)
    )
    chosen = spread[rows, columns]
    return chosen.reshape(chosen.shape[0] * chosen.shape[1], *spread.shape[2:])


def _by_place(feature: FeatureMap, place: Place, array: NDArray[Any]) -> NDArray[Any] | None:
    """A constant beside ``feature`` as (rows, columns, rest): what it holds for each place of the map."""
    rows, columns = (
        int(size * feature.scale[axis] + feature.constant[axis]) if axis in feature.scale else 1
        for size, axis in zip(place, SPATIAL, strict=True)
    )
    labels = feature.labels[len(feature.labels) - array.ndim :]
    shape, axes = _split(labels, array.shape, {"y": rows, "x": columns})
    if int(np.prod(shape)) != array.size:
        return None
    spread = array.reshape(shape)
    for axis in ("x", "y"):
        at = axes.get(axis)
        spread = np.expand_dims(spread, 0) if at is None else np.moveaxis(spread, at, 0)
        axes = {other: dim + (1 if at is None or dim < at else 0) for other, dim in axes.items() if other != axis}
    target = (rows, columns, *spread.shape[2:])
    return np.broadcast_to(spread, target) if _fits(spread.shape, target) else None


def _fits(shape: Sequence[int], target: Sequence[int]) -> bool:
    return all(size in (1, wanted) for size, wanted in zip(shape, target, strict=True))


def _split(labels: Labels, shape: Sequence[int], sizes: Mapping[str, int]) -> tuple[list[int], dict[str, int]]:
    """The shape with rows and columns apart, and where these are in it."""
    made: list[int] = []
    axes: dict[str, int] = {}
    for label, size in zip(labels, shape, strict=True):
        for axis in SPATIAL if label == "yx" else (label,):
            if is_spatial(label):
                axes[axis] = len(made)
            made.append(sizes[axis] if is_spatial(label) and size > 1 else size)
    return made, axes
