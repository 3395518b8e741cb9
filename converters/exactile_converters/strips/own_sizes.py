"""Strips for images of each accepted size: the last one ends as one pass over such an image does.

Where padding is written as numbers and no node uses the image's size, the same three graphs serve all sizes: only the
width of carries, and the least height of the last strip, depend on the remainder. Otherwise graphs are built for each
pair of remainders, and equal ones are shared.
"""

from __future__ import annotations

from collections.abc import Container
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from itertools import product, zip_longest

import onnx_ir as ir

from exactile.contract import StripModel
from exactile.geometry import AxisGeometry, Geometry
from exactile_converters.geometry.feature_maps import ForwardWalk, ImageSizes, walk_forward
from exactile_converters.geometry.period import ASKING
from exactile_converters.geometry.probe import Memory
from exactile_converters.geometry.reach import Interpolation, Same
from exactile_converters.geometry.registry import Transfer
from exactile_converters.geometry.sliding import SAME
from exactile_converters.graphs.io import Wrapped
from exactile_converters.placed.find import at_all_places
from exactile_converters.placed.told import Told
from exactile_converters.strips.build import build_strips
from exactile_converters.strips.frontier import Frontiers
from exactile_converters.strips.heights import least_last_rows
from exactile_converters.strips.refusal import StripError
from exactile_converters.strips.windows import WINDOWS

MOST_STRIP_MODELS = 16
"""For more pairs of a height's and a width's remainder, graphs are built only for known images."""

Others = dict[tuple[int, int], StripModel]


def strips_for_own_sizes(
    wrapped: Wrapped,
    sizes: ImageSizes,
    geometry: Geometry,
    strips: StripModel,
    image_size: tuple[int, int] | None,
    period: int = 1,
    told: Told | None = None,
    memory: Memory | None = None,
) -> tuple[StripModel, Others]:
    """Return ``strips``, those for ``sizes``, with other sizes that their graphs serve; and others, by remainders.

    Remainders are (height, width). With ``image_size``, (height, width), for images of this size only. ``period`` is
    that of the network's walk. Where ``strips`` get their position as an input, ``told`` has the operators that need
    it; other strips do not serve sizes at which operators need it. ``memory`` is that of probes of the unchanged
    wrapped graph.
    """
    memory = memory if memory is not None else {}
    if told is None:
        geometry = geometry.without_placed
    axes = [axis for axis in (geometry.y, geometry.x) if _others(axis)]
    if not axes:
        return strips, {}
    if _is_plain(wrapped, sizes, told or Told(), memory):
        return _served(wrapped, sizes, geometry, strips, period, told or Told(), memory), {}
    if image_size is not None:
        of_image = geometry.of_size(image_size)
        pairs = [(of_image.y, of_image.x)]
    else:
        pairs = list(product((geometry.y, *_others(geometry.y)), (geometry.x, *_others(geometry.x))))
    found: Others = {}
    for y, x in pairs if len(pairs) <= MOST_STRIP_MODELS else ():
        if (y, x) == (geometry.y, geometry.x) or y.one_pass or x.one_pass:
            continue
        try:
            shifted = _shifted(sizes, geometry, y.remainder, x.remainder)
            found[y.remainder, x.remainder] = build_strips(
                wrapped, shifted, y.remainder, period=period, like=strips, told=told, memory=memory
            )
        except StripError:
            continue  # such images run in tiles
    return strips, found


def _others(axis: AxisGeometry) -> list[AxisGeometry]:
    return [other for other in axis.others or () if not other.one_pass]


def _shifted(sizes: ImageSizes, geometry: Geometry, height: int, width: int) -> ImageSizes:
    """Return ``sizes`` with these remainders."""
    y, x = geometry.y, geometry.x
    more = (height - y.remainder) % y.stride, (width - x.remainder) % x.stride
    small, large = ((rows + more[0], columns + more[1]) for rows, columns in (sizes.small, sizes.large))
    return ImageSizes(small, large)


def _walk(wrapped: Wrapped, sizes: ImageSizes, memory: Memory) -> ForwardWalk:
    graph = wrapped.model.graph
    return walk_forward(
        wrapped.model, graph.inputs[0], ("y", "x", "c"), wrapped.image.channels, list(graph), sizes, memory
    )


def _is_plain(wrapped: Wrapped, sizes: ImageSizes, told: Told, memory: Memory) -> bool:
    """Return whether only operators that get their position can depend on the remainder in the strip graphs."""
    walk = _walk(wrapped, sizes, memory)
    return not any(
        _is_answered(node, told, walk.features) for node in wrapped.model.graph if node.op_type in ASKING
    ) and all(node in told.placed or _node_is_plain(node, transfer) for node, transfer in walk.transfers.items())


def _is_answered(node: ir.Node, told: Told, features: Container[str]) -> bool:
    """Return whether an operator on maps that does not get its position uses the result of ``node`` unchanged."""
    waiting, seen = [node], {node}
    while waiting:
        for value in waiting.pop().outputs:
            if value.is_graph_output():
                return True
            for reader, operand in value.uses():
                if told.asks(reader, operand) or reader in seen:
                    continue
                if any(one is not None and one.name in features for one in reader.inputs):
                    return True
                seen.add(reader)
                waiting.append(reader)
    return False


def _node_is_plain(node: ir.Node, transfer: Transfer) -> bool:
    reaches = [reach for flow in transfer.flows for reach in flow.reach.values()]
    if node.op_type in WINDOWS:
        return node.attributes.get_string("auto_pad", "NOTSET") not in SAME
    if node.op_type == "ConvTranspose":
        return node.attributes.get_string("auto_pad", "NOTSET") not in SAME and "output_shape" not in node.attributes
    if node.op_type in {"Resize", "Upsample"}:
        by_size = len(node.inputs) > 3 and node.inputs[3] is not None
        return not by_size and all(isinstance(reach, Interpolation) and reach.scale >= 1 for reach in reaches)
    if node.op_type in {"Reshape", "Flatten", "Expand"}:
        return False
    return node.op_type == "DepthToSpace" or all(isinstance(reach, Same) for reach in reaches)


def _served(
    wrapped: Wrapped,
    sizes: ImageSizes,
    geometry: Geometry,
    strips: StripModel,
    period: int,
    told: Told,
    memory: Memory,
) -> StripModel:
    """Return ``strips`` with the numbers by which its graphs serve other remainders."""
    rows: dict[int, int] = {}
    columns: dict[int, tuple[Fraction, ...]] = {}
    for y, x in zip_longest(_others(geometry.y), _others(geometry.x)):
        height, width = (y or geometry.y).remainder, (x or geometry.x).remainder
        walk = _walk(wrapped, _shifted(sizes, geometry, height, width), memory)
        walk.period = period
        for node, found in told.placed.items():
            walk.transfers[node] = at_all_places(walk.transfers[node], found)
        if y is not None:
            with suppress(StripError):  # such images run in tiles
                rows[height] = least_last_rows(Frontiers(walk, list(wrapped.model.graph), height))
        if x is not None:
            columns[width] = tuple(walk.features[carry.of].constant["x"] for carry in strips.carries)
    return replace(strips, own_rows=rows, own_columns=columns)
