"""Find the operators that depend on the position in the image, at some size that the network accepts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import onnx_ir as ir

from exactile_converters.geometry.feature_maps import FeatureMap, ForwardWalk
from exactile_converters.geometry.node_view import SPATIAL, Label
from exactile_converters.geometry.reach import Interpolation, Placed, Reach
from exactile_converters.geometry.registry import Transfer
from exactile_converters.geometry.trace import Traced
from exactile_converters.placed.lines import MapLine


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedAxis:
    """One axis of a placed operator: ``dim`` of operand and result, and how both grow with the image.

    ``reach`` is what it reads at any size; ``scale`` is that of the node, None where it resizes to sizes.
    """

    dim: int
    operand: MapLine
    result: MapLine
    reach: Placed
    scale: float | None

    @property
    def most_taps(self) -> int:
        """Return the most taps of a window of an antialiased operator; see ``rules.placed_resampling``."""
        return self.reach.last - self.reach.first - 2


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedNode:
    """The axes that an operator changes; it keeps the others. ``rank`` is the number of all dimensions.

    ``dtype`` is ONNX's number of the element type.
    """

    rank: int
    dtype: int
    axes: Mapping[Label, PlacedAxis]


def placed_nodes(traced: Traced) -> dict[ir.Node, PlacedNode]:
    """Return every Resize (and Upsample) node of a traced network that depends on the position at some size."""
    return {
        node: PlacedNode(
            rank=len(_map(traced.walk, node.outputs[0]).labels),
            dtype=_map(traced.walk, node.outputs[0]).dtype,
            axes={axis: found for axis in SPATIAL if (found := _axis(traced, node, axis)) is not None},
        )
        for node in traced.nodes
        if any(isinstance(reach, Placed) for axis in SPATIAL for _, reach, _ in _ways(traced, node, axis))
    }


def at_all_places(transfer: Transfer, placed: PlacedNode) -> Transfer:
    """Return what a placed operator reads at any size, in place of what it reads at one."""
    (flow,) = transfer.flows
    reach = {**flow.reach, **{axis: found.reach for axis, found in placed.axes.items()}}
    return replace(transfer, flows=(replace(flow, reach=reach, reflected={}),))


def _axis(traced: Traced, node: ir.Node, axis: Label) -> PlacedAxis | None:
    ways = list(_ways(traced, node, axis))
    reaches = [_as_placed(reach) for _, reach, _ in ways]
    if all(reach is None for reach in reaches):
        return None  # the axis keeps its size
    joined = next(reach for reach in reaches if reach is not None)
    for reach in reaches:
        joined = joined.joined(reach) if reach is not None else joined
    _, _, first = ways[0]
    source, made = node.inputs[0], node.outputs[0]
    assert source is not None
    operand, result = (line_of(traced, value.name or "", axis) for value in (source, made))
    if operand == result:
        return None
    given = next((reach.given for _, reach, _ in ways if isinstance(reach, Placed)), None)
    return PlacedAxis(
        dim=_map(first, made).labels.index(axis), operand=operand, result=result, reach=joined, scale=given
    )


def line_of(traced: Traced, name: str, axis: Label) -> MapLine:
    """Return how the feature map ``name`` grows along ``axis``."""
    assert traced.geometry is not None
    base = traced.geometry.y if axis == "y" else traced.geometry.x
    constants = {base.remainder: traced.features[name].constant[axis]}
    constants |= {
        remainder: walk.features[name].constant[axis]
        for (along, remainder), walk in traced.own.items()
        if along == axis
    }
    constants |= {remainder: known[name] for (along, remainder), known in traced.in_one_piece.items() if along == axis}
    return MapLine(traced.features[name].scale[axis], base.stride, constants)


def position_operands(traced: Traced) -> dict[str, tuple[int, ...]]:
    """Return the operands that are computed from the image's size, by the name of a node's first result."""
    return {
        node.outputs[0].name or "": transfer.positions
        for node, transfer in traced.walk.transfers.items()
        if transfer.positions
    }


def _ways(traced: Traced, node: ir.Node, axis: Label) -> Iterator[tuple[int, Reach, ForwardWalk]]:
    """Yield the node's reach along ``axis`` for each remainder of sizes along it that can be tiled."""
    assert traced.geometry is not None
    base = traced.geometry.y if axis == "y" else traced.geometry.x
    walks = {base.remainder: traced.walk} | {
        remainder: walk for (along, remainder), walk in traced.own.items() if along == axis
    }
    for remainder, walk in walks.items():
        transfer = walk.transfers.get(node)
        if transfer is not None and node.op_type in {"Resize", "Upsample"}:
            yield remainder, transfer.flows[0].along(axis), walk


def _as_placed(reach: Reach) -> Placed | None:
    match reach:
        case Placed():
            return reach
        case Interpolation():
            return reach.placed()
    return None


def _map(walk: ForwardWalk, value: ir.Value) -> FeatureMap:
    return walk.features[value.name or ""]
