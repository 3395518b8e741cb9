"""Cyclic shifts that a network undoes, with attention in windows between the two.

A shift by ``s`` moves the first ``s`` rows behind the last ones. The walk counts it as a crop, whose windows read ``s``
rows further on, and the shift back as padding. That is right if rows that went around the edge and rows that did not
stay independent until they are back in place: then the first ``s`` rows depend only on themselves, wherever the image
ends, and so they do in a tile. Masks ensure this. It is checked here for images of a few strides, with the parts
(``parts.py``) from which every entry is computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from exactile_converters.geometry.feature_maps import ForwardWalk
from exactile_converters.geometry.node_view import Label
from exactile_converters.geometry.obstacle import ObstacleError, obstacle_at
from exactile_converters.geometry.parts import (
    MOVED,
    OF_PARTS,
    UNMOVED,
    NotFollowedError,
    Operands,
    Parts,
    parts_of_results,
)
from exactile_converters.geometry.probe import Probe

MOST_ENTRIES = 1 << 26
"""Larger maps are not followed."""

MASK = "Mask what a shift brings together (by -100 or less, before the softmax), and shift back"


@dataclass(frozen=True, slots=True)
class _Shifted:
    """A map that is shifted along axes, and the shifts; ``fresh`` if nothing but shifts was done since."""

    parts: Parts
    shifts: Mapping[Label, int]
    fresh: bool


def check_shifts(walk: ForwardWalk, nodes: Sequence[ir.Node], results: Sequence[ir.Value], probe: Probe) -> None:
    """Add an obstacle where a shift is not undone, or mixes what it moved around the edge with the rest.

    ``results`` are checked as they are. ``walk.shifted`` is set to the maps between a shift and the shift back.
    """
    if not any(transfer.shift is not None for transfer in walk.transfers.values()):
        return
    follower = _Follower(walk, probe)
    last = {value.name: node for node in nodes for value in node.inputs if value is not None}
    for node in nodes:
        follower.visit(node)
        follower.forget(value.name or "" for value in node.inputs if value is not None and last[value.name] is node)
    follower.check_ends(results)
    walk.shifted = follower.shifted | follower.lost


class _Follower:
    def __init__(self, walk: ForwardWalk, probe: Probe) -> None:
        self._walk, self._probe = walk, probe
        self.shifted: set[str] = set()
        self.lost: set[str] = set()
        self._maps: dict[str, _Shifted] = {}

    def visit(self, node: ir.Node) -> None:
        transfer = self._walk.transfers.get(node)
        read = [node.inputs[flow.operand] for flow in transfer.flows] if transfer is not None else []
        names = [value.name or "" for value in read if value is not None]
        if transfer is None or any(name in self.lost for name in names):
            self.lost.update(value.name or "" for value in node.outputs if transfer is not None)
            return
        if transfer.shift is None and not any(name in self._maps for name in names):
            return
        try:
            if transfer.shift is not None:
                self._shift(node, *transfer.shift)
            else:
                self._follow(node, names, transfer.positions)
        except NotFollowedError as error:
            self.lost.update(value.name or "" for value in node.outputs)
            self._obstacle(node, str(error) or "it computes with a cyclically shifted map, whose edges it may mix")

    def _obstacle(self, node: ir.Node, reason: str) -> None:
        self._walk.obstacles.append(obstacle_at(node, ObstacleError(reason, MASK)))

    def _follow(self, node: ir.Node, names: Sequence[str], positions: Sequence[int]) -> None:
        read = {name: self._maps.get(name) for name in names}
        first = next(one for one in read.values() if one is not None)
        if any(one is None or one.shifts != first.shifts for one in read.values()):
            raise NotFollowedError("it joins a cyclically shifted map with one that is not shifted alike")
        known = [self._maps.get(value.name or "") if value is not None else None for value in node.inputs]
        operands = Operands(node, self._probe, [one.parts if one is not None else None for one in known], positions)
        if max(int(np.prod(operands.made(index))) for index in range(len(node.outputs))) > MOST_ENTRIES:
            raise NotFollowedError("it makes a cyclically shifted map that is too large to check")
        for value, parts in zip(node.outputs, parts_of_results(operands), strict=False):
            self._keep(value, _Shifted(parts, first.shifts, fresh=False))

    def _shift(self, node: ir.Node, axis: Label, shift: int) -> None:
        value, result = node.inputs[0], node.outputs[0]
        feature = self._walk.features[value.name or ""] if value is not None else None
        assert feature is not None
        dim = feature.labels.index(axis)
        before = self._maps.get(feature.name)
        if before is None or (before.fresh and axis not in before.shifts):
            made = self._begun(node, before, axis, dim, shift)
        elif before.shifts.get(axis) == -shift:
            made = self._ended(before, axis, dim, shift)
        else:
            raise NotFollowedError("it cyclically shifts a map that is already shifted")
        if made.shifts:
            self._keep(result, made)

    def _keep(self, value: ir.Value, made: _Shifted) -> None:
        self.shifted.add(value.name or "")
        self._maps[value.name or ""] = made

    def forget(self, names: Iterable[str]) -> None:
        """Forget maps that no further node reads."""
        for name in names:
            self._maps.pop(name, None)

    def _begun(self, node: ir.Node, before: _Shifted | None, axis: Label, dim: int, shift: int) -> _Shifted:
        shape = Operands(node, self._probe, [], []).made()
        if int(np.prod(shape)) > MOST_ENTRIES or not 0 < abs(shift) < shape[dim]:
            raise NotFollowedError(f"it shifts a map of {shape[dim]} entries along {axis} cyclically by {shift}")
        own = np.where(_moved(shape[dim], shift), MOVED[axis], UNMOVED[axis]).astype(np.uint8)
        own = own.reshape([-1 if at == dim else 1 for at in range(len(shape))])
        parts = np.broadcast_to(own, shape) if before is None else before.parts & own
        shifts = {**(before.shifts if before is not None else {}), axis: shift}
        return _Shifted(np.roll(parts, -shift, dim), shifts, fresh=True)

    def _ended(self, before: _Shifted, axis: Label, dim: int, shift: int) -> _Shifted:
        parts = np.moveaxis(np.roll(before.parts, -shift, dim), dim, 0) & OF_PARTS
        moved = _moved(len(parts), -shift)
        if np.any(parts[moved] & UNMOVED[axis]) or np.any(parts[~moved] & MOVED[axis]):
            raise NotFollowedError(
                f"a cyclic shift along {axis} ends here, and what it had moved around the edge of the image has taken "
                "part in the rest: no mask keeps the two apart"
            )
        rest = {other: by for other, by in before.shifts.items() if other != axis}
        return _Shifted(np.moveaxis(_without(parts, axis), 0, dim), rest, fresh=False)

    def check_ends(self, results: Sequence[ir.Value]) -> None:
        """Check that no result is shifted."""
        for value in results:
            maker = value.producer()
            if maker is not None and value.name in self.shifted:
                self._obstacle(maker, "its result is cyclically shifted: its edges lie inside the image")


def _moved(size: int, shift: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Return which entries a shift moves around the edge, by their positions before."""
    return np.arange(size) < shift if shift > 0 else np.arange(size) >= size + shift


def _without(parts: Parts, axis: Label) -> Parts:
    """Merge both parts that the shift along ``axis`` made."""
    step = np.uint8(1 if axis == "y" else 2)
    return (parts | (parts >> step)) & UNMOVED[axis] | ((parts | (parts << step)) & MOVED[axis])
