"""The graphs of a wrapped network: for tiles and strips, and those that are told where they lie in the image."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from exactile.contract import PlacedModel, StripModel
from exactile_converters.cuda_kernels.doubts import mark_doubt
from exactile_converters.geometry.trace import Traced
from exactile_converters.graphs.io import Wrapped, statistics_as_inputs
from exactile_converters.placed.tile_graph import place_in_tile
from exactile_converters.placed.told import Told
from exactile_converters.strips.build import build_strips
from exactile_converters.strips.memory import graph_memory
from exactile_converters.strips.own_sizes import Others, strips_for_own_sizes
from exactile_converters.strips.refusal import StripError


def finished_graph(wrapped: Wrapped, told: Told | None = None) -> onnx.ModelProto:
    """The graph of tiles, for any accepted shape; told where they lie with ``told``."""
    proto = ir.to_proto(wrapped.model)
    if told is not None:
        by_result = {node.outputs[0].name or "": found for node, found in told.placed.items()}
        place_in_tile(proto, wrapped.image.name, by_result, told.positions)
    statistics_as_inputs(proto, wrapped.image.statistics)
    mark_doubt(proto)
    return proto


def made_strips(
    wrapped: Wrapped,
    traced: Traced,
    image_size: tuple[int, int] | None,
    *,
    wanted: bool,
    told: Told | None = None,
) -> tuple[StripModel | None, str, Others]:
    """Strips, or why there are none, and those for images of other remainders."""
    assert traced.geometry is not None
    if not wanted:
        return None, "the model was deployed without strips", {}
    try:
        geometry, period = traced.geometry, traced.walk.period
        strips = build_strips(wrapped, traced.sizes, geometry.y.remainder, period=period, told=told)
        strips, others = strips_for_own_sizes(wrapped, traced.sizes, geometry, strips, image_size, period, told)
    except StripError as error:
        return None, str(error), {}
    return strips, "", others


def placed_model(
    wrapped: Wrapped, traced: Traced, told: Told, image_size: tuple[int, int] | None, *, strips: bool
) -> PlacedModel:
    """The graphs that are told where they lie."""
    proto = finished_graph(wrapped, told)
    (height, width), (more_rows, more_columns) = traced.sizes.small, traced.sizes.large
    model, reason, others = made_strips(wrapped, traced, image_size, wanted=strips, told=told)
    return PlacedModel(
        graph=proto.SerializeToString(),
        memory=graph_memory(proto, (height, more_rows), (width, more_columns)),
        strips=model,
        no_strips_reason=reason,
        other_strips=others,
    )
