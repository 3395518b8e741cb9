"""Turn a loaded network into what the runtime runs: geometry, input and output inside the graph, memory model."""

from __future__ import annotations

from dataclasses import replace

from exactile.contract import Activation, Contract, DeployedModel, OutputKind
from exactile_converters.cleanup.explicit_windows import write_windows
from exactile_converters.cleanup.explicit_zero_points import write_zero_points
from exactile_converters.cuda_kernels.write import write_for_provider
from exactile_converters.declared.choice import chosen, normalization_for
from exactile_converters.deploy_graphs import finished_graph, made_strips, placed_model
from exactile_converters.deploy_whole import deploy_whole
from exactile_converters.executed_graphs.strips import executed_strips
from exactile_converters.geometry.probe import Memory
from exactile_converters.graphs.computing import mac_per_pixel
from exactile_converters.graphs.fewer_bits import is_of_fewer_bits
from exactile_converters.graphs.io import MapDtype, Normalization, ResultWish, wrap
from exactile_converters.graphs.memory_records import wrapped_memory
from exactile_converters.inspection import Inspection, inspect_network, untileable
from exactile_converters.networks.network import Network
from exactile_converters.one_pass.statistics_graph import whole_graph
from exactile_converters.onnx_files.untrusted import understood
from exactile_converters.passes.deploy import deployed_levels, obstacles_left, without_statistics, work_from_the_image
from exactile_converters.passes.keep import keeping
from exactile_converters.passes.key import statistics_key
from exactile_converters.passes.levels import levels_of
from exactile_converters.passes.reductions import Reduction
from exactile_converters.placed.told import told_of
from exactile_converters.prepare.external_files import external_files
from exactile_converters.prepare.from_onnx import load_network

__all__ = [
    "Inspection",
    "Normalization",
    "deploy",
    "deploy_in_passes",
    "deploy_whole",
    "external_files",
    "inspect_network",
    "load_network",
    "normalization_for",
    "obstacles_left",
]


def deploy(
    network: Network,
    *,
    image_dtype: str,
    normalization: Normalization | None = None,
    output: OutputKind | None = None,
    map_dtype: MapDtype | None = None,
    threshold: float | None = None,
    activation: Activation | None = None,
    strips: bool = True,
    image_size: tuple[int, int] | None = None,
) -> DeployedModel:
    """Deploy ``network`` for images of ``image_dtype`` ("uint8", "uint16" or "float32"); consumes the network.

    ``normalization`` and ``output`` default to what the network's file declares, else to samples as stored, and labels.
    ``map_dtype`` is the type of probabilities and raw maps, float32 by default; ``threshold`` that of the probability,
    for one channel or multilabel planes (default 0.5); ``activation`` what turns the output into probabilities
    (default: inferred from the graph). ``strips=False`` omits the strip graphs, where only the tile plan will be used.
    With ``image_size``, (height, width), only this size is examined, which is faster: whether the network takes it
    unchanged. Images of sizes that were not examined are extended to a multiple of the stride.

    Raises NotTileableError listing the obstacles, with the network unchanged (use ``deploy_whole`` for it),
    ChannelError, and OptionError where ``output`` makes no sense.
    """
    choice = chosen(
        network,
        image_dtype,
        normalization=normalization,
        output=output,
        map_dtype=map_dtype,
        threshold=threshold,
        activation=activation,
    )
    with understood(network.name):
        model = _deployed(network, image_dtype, choice.normalization, choice.wish, strips=strips, image_size=image_size)
    return choice.told_in(model)


def deploy_in_passes(
    network: Network,
    *,
    image_dtype: str,
    normalization: Normalization | None = None,
    output: OutputKind | None = None,
    map_dtype: MapDtype | None = None,
    threshold: float | None = None,
    activation: Activation | None = None,
    strips: bool = True,
    image_size: tuple[int, int] | None = None,
    one_pass: bool = False,
) -> DeployedModel:
    """Deploy a ``network`` that computes statistics of the whole image; the network is not modified.

    Passes over the image compute the statistics, then one more computes the result: in tiles and strips, equal to one
    pass. With ``one_pass``, images that fit in memory as a whole are run in one pass. Other options are those of
    ``deploy``.

    Raises NotTileableError listing the remaining obstacles, ChannelError, OptionError.
    """
    choice = chosen(
        network,
        image_dtype,
        normalization=normalization,
        output=output,
        map_dtype=map_dtype,
        threshold=threshold,
        activation=activation,
    )
    with understood(network.name):
        local, reductions = without_statistics(network.copy())
        key = statistics_key(local, reductions, image_dtype=image_dtype, normalization=choice.normalization)
        found = _deployed(
            local,
            image_dtype,
            choice.normalization,
            choice.wish,
            strips=strips,
            image_size=image_size,
            reductions=reductions,
            whole=network if one_pass else None,
        )
        return choice.told_in(replace(found, statistics_key=key))


def _deployed(
    network: Network,
    image_dtype: str,
    normalization: Normalization,
    wish: ResultWish,
    *,
    strips: bool,
    image_size: tuple[int, int] | None,
    reductions: tuple[Reduction, ...] = (),
    whole: Network | None = None,
) -> DeployedModel:
    traced = network.with_own_sizes(network.trace(), image_size)
    if traced.geometry is None:
        raise untileable(network)
    asking, macs = told_of(traced), mac_per_pixel(traced.nodes, traced.features)
    write_windows(traced)
    write_zero_points(traced.nodes, {name: feature.dtype for name, feature in traced.features.items()})
    levels = deployed_levels(network, traced, reductions, asking, image_dtype=image_dtype, normalization=normalization)
    work = work_from_the_image(network, traced, reductions)[-1]
    kept = None
    if reductions:
        kept = keeping(
            network,
            traced,
            levels_of(network.model, reductions),
            asking,
            image_size=image_size,
            image_dtype=image_dtype,
            normalization=normalization,
            wrapped=lambda: wrap(
                network.copy(), traced.features, image_dtype=image_dtype, normalization=normalization, wish=wish
            ),
        )
    of_fewer_bits = network.copy() if strips and not reductions and is_of_fewer_bits(network.model) else None
    wrapped = wrap(
        network,
        traced.features,
        image_dtype=image_dtype,
        normalization=normalization,
        wish=wish,
    )
    found_whole = None
    if whole is not None:
        found_whole = whole_graph(whole, traced, wrapped, normalization=normalization, wish=wish)
    write_for_provider(wrapped.model)
    told = placed_model(wrapped, traced, asking, image_size, strips=strips) if asking else None
    if told is not None and traced.geometry.placed:
        memory, graph, model, reason, others = (
            told.memory,
            told.graph,
            told.strips,
            told.no_strips_reason,
            told.other_strips,
        )
    else:
        probed: Memory = {}
        memory, graph = wrapped_memory(wrapped, traced.sizes, probed), finished_graph(wrapped).SerializeToString()
        if of_fewer_bits is not None:
            model, reason, others = executed_strips(
                of_fewer_bits, wrapped, traced, image_size, normalization=normalization, wish=wish
            )
        else:
            model, reason, others = made_strips(wrapped, traced, image_size, wanted=strips, memory=probed)
    contract = Contract(
        model_name=network.name,
        geometry=traced.geometry.all_placed,  # its graph has the position as an input, whether or not the size needs it
        image=wrapped.image,
        result=wrapped.result,
        memory=memory,
        mac_per_pixel=macs,
    )
    return DeployedModel(
        contract=contract,
        graph=graph,
        strips=model,
        no_strips_reason=reason,
        other_strips=others,
        placed=told,
        image_size=image_size,
        levels=levels,
        keeping=kept,
        whole=found_whole,
        work=work,
    )
