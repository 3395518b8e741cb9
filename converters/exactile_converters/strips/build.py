"""Build a strip model from a wrapped network: three graphs, their carries, and their memory."""

from __future__ import annotations

import onnx_ir as ir

from exactile.contract import StripGraph, StripModel, StripRole
from exactile_converters.cuda_kernels.doubts import mark_doubt
from exactile_converters.geometry.feature_maps import ImageSizes, walk_forward
from exactile_converters.geometry.probe import Memory
from exactile_converters.graphs.fewer_bits import is_of_fewer_bits, store_in_half_precision
from exactile_converters.graphs.io import Wrapped, statistics_as_inputs
from exactile_converters.placed.told import Told
from exactile_converters.strips.cost import StripCosts
from exactile_converters.strips.demand import demand
from exactile_converters.strips.graphs import carries, strip_graph
from exactile_converters.strips.heights import least_last_rows, startup_rows
from exactile_converters.strips.memory import strip_memory
from exactile_converters.strips.outside import SHARED_FROM_BYTES, Weights, large_constants, share_weights
from exactile_converters.strips.placement import place
from exactile_converters.strips.refusal import StripError
from exactile_converters.strips.source import StripSource

ROLES: tuple[StripRole, ...] = ("first", "body", "last")

USUAL_STRIP_ROWS = 128
"""The strip height for which the carried maps are chosen."""


def build_strips(
    wrapped: Wrapped,
    sizes: ImageSizes,
    remainder: int,
    *,
    period: int = 1,
    like: StripModel | None = None,
    told: Told | None = None,
    memory: Memory | None = None,
) -> StripModel:
    """Return the strip model of a wrapped network; ``sizes`` are accepted image sizes, ``remainder`` that of heights.

    ``period`` is that of the network's walk; ``told`` are the operators that depend on the position at any size for
    which the strips are built. With ``like``, strips of the same network for other sizes, the same maps are carried,
    and equal graphs are shared. ``memory`` is that of probes of the unchanged wrapped graph.

    Raises StripError saying why there is none.
    """
    if not wrapped.processor and is_of_fewer_bits(wrapped.model):
        raise StripError(
            "it is of fewer bits, and what ONNX Runtime makes of a part of it depends on what stands beside it"
        )
    source = _source(wrapped, sizes, remainder, period, told, memory if memory is not None else {})
    carry = place(source, strip_rows=USUAL_STRIP_ROWS) if like is None else {one.of for one in like.carries}
    need = demand(source.frontiers, carry)
    carried = carries(source, need)
    costs = StripCosts(source)
    growing, fixed = costs.parts(carry, USUAL_STRIP_ROWS)
    weights: Weights = {}
    graphs: dict[StripRole, StripGraph] = {}
    for role in ROLES:
        model = strip_graph(source, carry, role)
        statistics_as_inputs(model, wrapped.image.statistics)
        mark_doubt(model)
        need_bytes = strip_memory(model, source, carried, role)
        store_in_half_precision(model, SHARED_FROM_BYTES)
        share_weights(model, weights, outside=source.large)
        graphs[role] = StripGraph(graph=model.SerializeToString(), memory=need_bytes)
        if like is not None and graphs[role].graph == like.graphs[role].graph:
            graphs[role] = like.graphs[role]
    return StripModel(
        startup_rows=startup_rows(source.frontiers, need),
        least_last_rows=least_last_rows(source.frontiers),
        lag=source.frontiers.lag[source.result.name or ""],
        carries=carried,
        graphs=graphs,
        weights=weights,
        copied_passes=growing / costs.whole(1),
        recomputed_rows=fixed / costs.whole(1),
        processor=wrapped.processor,
    )


def _source(
    wrapped: Wrapped, sizes: ImageSizes, remainder: int, period: int, told: Told | None, memory: Memory
) -> StripSource:
    graph = wrapped.model.graph
    image, result = graph.inputs[0], graph.outputs[0]
    nodes: list[ir.Node] = list(graph)
    walk = walk_forward(wrapped.model, image, ("y", "x", "c"), wrapped.image.channels, nodes, sizes, memory)
    walk.period = period
    if any(transfer.masks or transfer.shift for transfer in walk.transfers.values()):
        raise StripError("its attention in shifted windows brings rows of both edges of the image together")
    return StripSource.of(
        model=wrapped.model,
        walk=walk,
        nodes=nodes,
        sizes=sizes,
        remainder=remainder,
        image=image,
        result=result,
        told=told,
        large=large_constants(graph),
        memory=memory,
    )
