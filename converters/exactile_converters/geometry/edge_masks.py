"""Masks: constants that follow the image's size, and are the same everywhere but at the far edges.

Networks that shift their maps cyclically mask attention between pixels that the shift brought together from opposite
edges. Such a mask is zero except in the last row and the last column of windows. A tile computes it for its own size.
That is right where the tile ends with the image; elsewhere, the tile's last windows are not used, since they read
beyond the tile. Both is checked here: at several sizes, the mask depends only on whether a position is the last one;
and the last position reads more of the image than a tile contains that ends there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from exactile.geometry import Span
from exactile_converters.geometry.feature_maps import FeatureMap, ForwardWalk
from exactile_converters.geometry.node_view import SPATIAL, Label, Labels, is_spatial
from exactile_converters.geometry.obstacle import Obstacle, obstacle_at
from exactile_converters.geometry.probe import Probe
from exactile_converters.geometry.rules.pixelwise import varies_along

Place = tuple[int, int]
Needed = Callable[[FeatureMap, Label, Span], Mapping[str, Span]]
"""What a span of a map needs of each map before it, along an axis."""

Kind = tuple[bool, bool]
"""Whether a position is the last one along y, and along x."""

KINDS: tuple[Kind, ...] = ((False, False), (False, True), (True, False), (True, True))


class Masks:
    """The masks of a ``walk``, compared at one image size after another."""

    def __init__(self, walk: ForwardWalk, nodes: Sequence[ir.Node]) -> None:
        self._walk = walk
        self._masks = [
            _Mask(node, node.inputs[index], walk.features[node.outputs[0].name or ""])
            for node in nodes
            for index in (walk.transfers[node].masks if node in walk.transfers else ())
        ]

    def compare(self, place: Place, probe: Probe) -> None:
        """Compare the masks' values for an image of (height, width) pixels."""
        for mask in self._masks:
            mask.compare(place, probe)

    def obstacles(self, image_px: Mapping[Label, int], needed: Needed) -> Iterator[Obstacle]:
        """Yield an obstacle for each that is not a mask. ``image_px`` is a size of the compared remainders, by axis."""
        for mask in self._masks:
            ends = (_reads_on(self._walk, mask.feature, axis, image_px[axis], needed) for axis in mask.edges())
            if mask.alike and all(ends):
                continue
            yield obstacle_at(mask.node, varies_along(next(filter(is_spatial, mask.feature.labels))))


@dataclass(slots=True)
class _Mask:
    """``kinds`` holds the mask's values at positions of each kind, as long as positions of a kind are ``alike``."""

    node: ir.Node
    value: ir.Value | None
    feature: FeatureMap
    kinds: dict[Kind, NDArray[Any]] = field(default_factory=dict)
    alike: bool = True

    def compare(self, place: Place, probe: Probe) -> None:
        fact = probe.of(self.value)
        spread = _by_place(self.feature, place, fact.value) if fact is not None and fact.value is not None else None
        self.alike = self.alike and spread is not None and all(self._is_alike(kind, spread) for kind in KINDS)

    def _is_alike(self, kind: Kind, spread: NDArray[Any]) -> bool:
        entries = _of_kind(spread, kind)
        return not len(entries) or _all_same(self.kinds.setdefault(kind, entries[0].copy()), entries)

    def edges(self) -> list[Label]:
        """Return the axes at whose far end its values differ."""
        pairs: dict[Label, list[tuple[Kind, Kind]]] = {
            "y": [((False, one), (True, one)) for one in (False, True)],
            "x": [((one, False), (one, True)) for one in (False, True)],
        }
        return [axis for axis in SPATIAL if any(self._differ(*pair) for pair in pairs[axis])]

    def _differ(self, one: Kind, other: Kind) -> bool:
        return one in self.kinds and other in self.kinds and not _same(self.kinds[one], self.kinds[other])


def _reads_on(walk: ForwardWalk, feature: FeatureMap, axis: Label, size: int, needed: Needed) -> bool:
    """Return whether the last position of ``feature`` reads beyond the end of an image, or tile, of ``size`` pixels."""
    last = int(size * feature.scale[axis] + feature.constant[axis]) - 1
    return needed(feature, axis, Span(last, last + 1))[next(iter(walk.features))].stop > size


def made_for_masks(walk: ForwardWalk, nodes: Sequence[ir.Node]) -> set[ir.Node]:
    """Return the nodes whose results are used only in masks and cyclic shifts; others may use their shapes."""
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


def _same(one: NDArray[Any], other: NDArray[Any]) -> bool:
    return np.array_equal(one, other, equal_nan=one.dtype.kind == "f")


def _all_same(one: NDArray[Any], entries: NDArray[Any]) -> bool:
    return one.shape == entries.shape[1:] and _same(np.broadcast_to(one, entries.shape), entries)


def _of_kind(spread: NDArray[Any], kind: Kind) -> NDArray[Any]:
    """Return a mask's values at all positions of a kind, one after another."""
    rows, columns = (
        slice(size - 1, size) if last else slice(0, size - 1) for last, size in zip(kind, spread.shape, strict=False)
    )
    chosen = spread[rows, columns]
    return chosen.reshape(chosen.shape[0] * chosen.shape[1], *spread.shape[2:])


def _by_place(feature: FeatureMap, place: Place, array: NDArray[Any]) -> NDArray[Any] | None:
    """Return a constant operand for ``feature`` as (rows, columns, rest): its values at each position of the map."""
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
    """Return the shape with separate rows and columns, and their dimensions in it."""
    made: list[int] = []
    axes: dict[str, int] = {}
    for label, size in zip(labels, shape, strict=True):
        for axis in SPATIAL if label == "yx" else (label,):
            if is_spatial(label):
                axes[axis] = len(made)
            made.append(sizes[axis] if is_spatial(label) and size > 1 else size)
    return made, axes
