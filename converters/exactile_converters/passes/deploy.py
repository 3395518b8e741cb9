"""Deploy a network with statistics of the whole image: one graph for each level of statistics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from exactile.bundle.levels import NO_STRIPS
from exactile.contract import Contract, DeployedModel, Level, PlacedModel
from exactile_converters.cuda_kernels.write import write_for_provider
from exactile_converters.deploy_graphs import finished_graph, sizes_looked_at
from exactile_converters.geometry.obstacle import Obstacle
from exactile_converters.geometry.trace import Traced
from exactile_converters.graphs.io import Wrapped
from exactile_converters.networks.network import Network
from exactile_converters.networks.normalization import Normalization
from exactile_converters.passes.device_tail import device_pass, wrap_device_partials
from exactile_converters.passes.keeping import Cuts
from exactile_converters.passes.levels import LevelOf, level_geometry, levels_of, with_work
from exactile_converters.passes.partials import over_everything, wrap_partials
from exactile_converters.passes.reductions import Reduction, take_out
from exactile_converters.passes.statistics import statistic_of
from exactile_converters.placed.told import Told
from exactile_converters.strips.memory import graph_memory
from exactile_converters.strips.outside import share_weights

Weights = dict[str, NDArray[Any]]


def without_statistics(network: Network) -> tuple[Network, tuple[Reduction, ...]]:
    """Replace the statistics of the whole image in ``network`` by placeholders, in place."""
    local, reductions = take_out(network)
    return replace(local, also=tuple(one.of for one in reductions)), reductions


def obstacles_left(network: Network) -> tuple[Obstacle, ...]:
    """Return the obstacles to passes over the image, none if there are none; ``network`` is not modified."""
    local, _ = without_statistics(network.copy())
    return local.trace().obstacles


def deployed_levels(
    network: Network,
    traced: Traced,
    reductions: tuple[Reduction, ...],
    told: Told,
    *,
    image_dtype: str,
    normalization: Normalization,
) -> tuple[Level, ...]:
    """Return the passes before that of the result. ``network`` is traced, its windows written; it is not modified."""
    weights: Weights = {}
    levels = levels_of(network.model, reductions)
    made = [_level(network, traced, level, told, image_dtype, normalization, weights) for level in levels]
    return with_work(made, work_from_the_image(network, traced, reductions))


def work_from_the_image(network: Network, traced: Traced, reductions: tuple[Reduction, ...]) -> tuple[float, ...]:
    """Return the predicted time of each pass relative to one pass, where nothing is kept; the result's is the last."""
    if not reductions:
        return (1.0,)
    cuts = Cuts(traced, levels_of(network.model, reductions), network.result)
    return cuts.work(cuts.segments(frozenset()))


def _level(
    network: Network,
    traced: Traced,
    level: LevelOf,
    told: Told,
    image_dtype: str,
    normalization: Normalization,
    weights: Weights,
) -> Level:
    taken: Weights = {}

    def wrapped(wrap: Callable[..., Wrapped] = wrap_partials) -> Wrapped:
        made = wrap(network, traced, level, image_dtype=image_dtype, normalization=normalization)
        write_for_provider(made.model)
        return made

    def memory_of(asking: Told | None) -> Any:
        fixed = wrapped()
        over_everything(fixed.model)
        return graph_memory(finished_graph(fixed, asking), *sizes_looked_at(traced))

    def graph_of(asking: Told | None, wrap: Callable[..., Wrapped] = wrap_partials) -> bytes:
        proto = finished_graph(wrapped(wrap), asking)
        taken.update(share_weights(proto, weights, network.model.graph.initializers))
        graph: bytes = proto.SerializeToString()
        return graph

    geometry = level_geometry(traced, network.model, [one.of for one in level])
    sizes = [geometry.y, geometry.x, *(geometry.y.others or ()), *(geometry.x.others or ())]
    placed = None
    if any(one.placed for one in sizes):
        placed = PlacedModel(graph=graph_of(told), memory=memory_of(told))
    made = wrapped()
    contract = Contract(
        model_name=network.name,
        geometry=geometry,
        image=made.image,
        result=made.result,
        memory=placed.memory if placed is not None and geometry.placed else memory_of(None),
    )
    model = DeployedModel(
        contract=contract,
        graph=placed.graph if placed is not None and geometry.placed else graph_of(None),
        weights=taken,
        placed=placed,
        no_strips_reason=NO_STRIPS,
    )
    statistics = tuple(statistic_of(one, traced) for one in level)
    on_device = None
    if not geometry.placed:  # graphs on GPUs do not get the position of a tile
        on_device = device_pass(graph_of(None, wrap_device_partials), traced, level)
    return Level(model=model, statistics=statistics, on_device=on_device)
