"""The graph that computes its own statistics of the whole image, for images that fit in memory."""

from __future__ import annotations

from exactile.contract import WholeGraph
from exactile.errors import ExactileError
from exactile_converters.cleanup.explicit_zero_points import write_zero_points
from exactile_converters.cuda_kernels.write import write_for_provider
from exactile_converters.deploy_graphs import finished_graph, sizes_looked_at
from exactile_converters.geometry.trace import Traced
from exactile_converters.graphs.io import ResultWish, Wrapped, wrap
from exactile_converters.networks.network import Network
from exactile_converters.networks.normalization import Normalization
from exactile_converters.obstacles.find import find_statistics
from exactile_converters.strips.memory import graph_memory
from exactile_converters.strips.refusal import StripError


def whole_graph(
    network: Network, traced: Traced, wrapped: Wrapped, *, normalization: Normalization, wish: ResultWish
) -> WholeGraph | None:
    """Return the graph of ``network``, whose rest without statistics is ``traced`` and ``wrapped``.

    None where its memory is unknown before it runs, or where the two results differ in what is known of them.
    """
    copy, features, statistics = network.copy(), traced.features, find_statistics(network)
    write_zero_points(list(copy.model.graph), {name: feature.dtype for name, feature in features.items()})
    try:
        found = wrap(
            copy,
            features,
            image_dtype=wrapped.image.dtype,
            normalization=normalization,
            wish=wish,
            ranges=wrapped.ranges,
        )
        write_for_provider(found.model)
        proto = finished_graph(found)
        memory = graph_memory(proto, *sizes_looked_at(traced))
    except (StripError, ExactileError):
        return None
    if (found.image, found.result) != (wrapped.image, wrapped.result):
        return None
    short = tuple(one.summary for one in statistics)
    return WholeGraph(graph=proto.SerializeToString(), memory=memory, obstacles=short)
