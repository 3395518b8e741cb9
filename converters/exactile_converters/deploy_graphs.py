"""The graphs of a wrapped network: for tiles and strips, and those that are told where they lie in the image."""

from __future__ import annotations

from collections.abc import Mapping

import onnx
import onnx_ir as ir

from exactile.contract import PlacedModel, StripModel
from exactile_converters.cuda_kernels.doubts import mark_doubt
from exactile_converters.geometry.trace import Traced
from exactile_converters.graphs.io import Wrapped, statistics_as_inputs
from exactile_converters.placed.find import PlacedNode
from exactile_converters.placed.tile_graph import place_in_tile
from exactile_converters.strips.build import build_strips
from exactile_converters.strips.memory import graph_memory
from exactile_converters.strips.own_sizes import Others, strips_for_own_sizes
from exactile_converters.strips.refusal import StripError

Placed = Mapping[ir.Node, PlacedNode]


def finished_graph(wrapped: Wrapped, placed: Placed | None = None) -> onnx.ModelProto:
    """The graph of tiles, for any accepted shape; told where they lie where operators are ``placed``."""
    proto = ir.to_proto(wrapped.model)
    if placed is not None:
        place_in_tile(proto, wrapped.image.name, {node.outputs[0].name or "": found for node, found in placed.items()})
    statistics_as_inputs(proto, wrapped.image.statistics)
    mark_doubt(proto)
    return proto


def made_strips(
    wrapped: Wrapped,
    traced: Traced,
    image_size: tuple[int, int] | None,
    *,
    wanted: bool,
    placed: Placed | None = None,
) -> tuple[StripModel | None, str, Others]:
    """Strips, or why there are none, and those for images of other remainders."""
    assert traced.geometry is not None
    if not wanted:
        return None, "the model was deployed without strips", {}
    try:
        geometry, period = traced.geometry, traced.walk.period
        strips = build_strips(wrapped, traced.sizes, geometry.y.remainder, period=period, placed=placed)
        strips, others = strips_for_own_sizes(wrapped, traced.sizes, geometry, strips, image_size, period, placed)
    except StripError as error:
        return None, str(error), {}
    return strips, "", others


def placed_model(
    wrapped: Wrapped, traced: Traced, placed: Placed, image_size: tuple[int, int] | None, *, strips: bool
) -> PlacedModel:
    """The graphs that are told where they lie, of ``placed`` operators."""
    proto = finished_graph(wrapped, placed)
    (height, width), (more_rows, more_columns) = traced.sizes.small, traced.sizes.large
    model, reason, others = made_strips(wrapped, traced, image_size, wanted=strips, placed=placed)
    return PlacedModel(
        graph=proto.SerializeToString(),
        memory=graph_memory(proto, (height, more_rows), (width, more_columns)),
        strips=model,
        no_strips_reason=reason,
        other_strips=others,
    )
