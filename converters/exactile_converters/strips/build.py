"""From a wrapped network to a strip model: three graphs, what they carry, and what they need."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, numpy_helper

from exactile.contract import StripGraph, StripModel, StripRole
from exactile_converters.cuda_kernels.doubts import mark_doubt
from exactile_converters.executed import is_of_fewer_bits, store_in_half_precision
from exactile_converters.geometry.feature_maps import ImageSizes, walk_forward
from exactile_converters.graphs.io import Wrapped, statistics_as_inputs
from exactile_converters.placed.told import Told
from exactile_converters.strips.cost import StripCosts
from exactile_converters.strips.demand import demand
from exactile_converters.strips.graphs import carries, strip_graph
from exactile_converters.strips.heights import least_last_rows, startup_rows
from exactile_converters.strips.memory import strip_memory
from exactile_converters.strips.placement import place
from exactile_converters.strips.refusal import StripError
from exactile_converters.strips.source import StripSource

ROLES: tuple[StripRole, ...] = ("first", "body", "last")

SHARED_FROM_BYTES = 1024
"""Constants from this size on live outside the graphs, once for all three."""

USUAL_STRIP_ROWS = 128
"""The strip for which the carried maps are chosen."""

Weights = dict[str, NDArray[Any]]


def build_strips(
    wrapped: Wrapped,
    sizes: ImageSizes,
    remainder: int,
    *,
    period: int = 1,
    like: StripModel | None = None,
    told: Told | None = None,
) -> StripModel:
    """The strip model of a wrapped network; ``sizes`` are accepted image sizes, ``remainder`` that of heights.

    ``period`` is that of the network's walk; ``told`` is what depends on the position at any size that the
    strips are for. With ``like``, strips of the same network for other sizes, the same maps are carried, and equal
    graphs are shared.
    Raises StripError saying why there is none.
    """
    if not wrapped.processor and is_of_fewer_bits(wrapped.model):
        raise StripError(
            "it is of fewer bits, and what ONNX Runtime makes of a part of it depends on what stands beside it"
        )
    source = _source(wrapped, sizes, remainder, period, told)
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
        memory = strip_memory(model, source, carried, role)
        store_in_half_precision(model, SHARED_FROM_BYTES)
        share_weights(model, weights)
        graphs[role] = StripGraph(graph=model.SerializeToString(), memory=memory)
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


def _source(wrapped: Wrapped, sizes: ImageSizes, remainder: int, period: int, told: Told | None) -> StripSource:
    graph = wrapped.model.graph
    image, result = graph.inputs[0], graph.outputs[0]
    nodes: list[ir.Node] = list(graph)
    walk = walk_forward(wrapped.model, image, ("y", "x", "c"), wrapped.image.channels, nodes, sizes)
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
    )


def share_weights(model: ModelProto, weights: Weights, of: Collection[str] | None = None) -> dict[str, NDArray[Any]]:
    """Move large constants out of a graph; ONNX Runtime is given them by name. Those that were moved.

    A constant that has the name of another one in ``weights`` stays in the graph; with ``of``, also all but these.
    """
    moved: Weights = {}
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.nbytes < SHARED_FROM_BYTES or (of is not None and tensor.name not in of):
            continue
        known = weights.setdefault(tensor.name, array)
        if known is not array and (known.dtype != array.dtype or not np.array_equal(known, array)):
            continue
        moved[tensor.name] = known
        tensor.ClearField("raw_data")
        for field in ("float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
            tensor.ClearField(field)
        tensor.data_location = TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", "weights"
    return moved
