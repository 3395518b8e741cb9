"""Build the graphs of a wrapped network: for tiles and strips, without and with the position as an input."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from exactile.contract import PlacedModel, StripModel
from exactile.geometry import round_up
from exactile_converters.cuda_kernels.doubts import mark_doubt
from exactile_converters.geometry.probe import Memory
from exactile_converters.geometry.trace import Traced
from exactile_converters.graphs.io import Wrapped, statistics_as_inputs
from exactile_converters.placed.tile_graph import place_in_tile
from exactile_converters.placed.told import Told
from exactile_converters.strips.build import build_strips
from exactile_converters.strips.memory import graph_memory
from exactile_converters.strips.own_sizes import Others, strips_for_own_sizes
from exactile_converters.strips.refusal import StripError

Pair = tuple[int, int]
LEAST_LOOKED_AT_PX = 1024
LOOKED_AT_STRIDES = 32


def finished_graph(wrapped: Wrapped, told: Told | None = None) -> onnx.ModelProto:
    """Return the tile graph, for any accepted shape; with ``told``, it has the position in the image as an input."""
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
    memory: Memory | None = None,
) -> tuple[StripModel | None, str, Others]:
    """Return the strips, or why there are none, and the strips for images of other remainders.

    ``memory`` is that of probes of the unchanged wrapped graph.
    """
    memory = memory if memory is not None else {}
    assert traced.geometry is not None
    if not wanted:
        return None, "the model was deployed without strips", {}
    try:
        geometry, period = traced.geometry, traced.walk.period
        strips = build_strips(wrapped, traced.sizes, geometry.y.remainder, period=period, told=told, memory=memory)
        strips, others = strips_for_own_sizes(wrapped, traced.sizes, geometry, strips, image_size, period, told, memory)
    except StripError as error:
        return None, str(error), {}
    return strips, "", others


def sizes_looked_at(traced: Traced, image_size: tuple[int, int] | None = None) -> tuple[Pair, Pair]:
    """Return two heights and two widths at which the memory of a graph is measured, of the remainders of
    ``image_size``.

    The sizes at which the network was walked may be very large.
    """
    assert traced.geometry is not None
    found = []
    for index, axis in enumerate((traced.geometry.y, traced.geometry.x)):
        remainder = axis.remainder if image_size is None else image_size[index] % axis.stride
        least = max(LEAST_LOOKED_AT_PX, LOOKED_AT_STRIDES * axis.stride, 4 * (axis.margin_before + axis.margin_after))
        first = round_up(least, axis.stride)
        found.append((first + remainder, 2 * first + remainder))
    heights, widths = found
    return heights, widths


def placed_model(
    wrapped: Wrapped, traced: Traced, told: Told, image_size: tuple[int, int] | None, *, strips: bool
) -> PlacedModel:
    """Return the graphs that have the position in the image as an input."""
    proto = finished_graph(wrapped, told)
    model, reason, others = made_strips(wrapped, traced, image_size, wanted=strips, told=told)
    return PlacedModel(
        graph=proto.SerializeToString(),
        memory=graph_memory(proto, *sizes_looked_at(traced)),
        strips=model,
        no_strips_reason=reason,
        other_strips=others,
    )
