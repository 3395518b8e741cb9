"""From a loaded network to what the runtime runs: geometry, input and output inside the graph, memory model."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from exactile.contract import Activation, Contract, DeployedModel, OutputKind, StripModel
from exactile_converters.cuda_kernels.doubts import mark_doubt
from exactile_converters.cuda_kernels.write import write_for_provider
from exactile_converters.deploy_whole import deploy_whole
from exactile_converters.explicit_windows import write_windows
from exactile_converters.explicit_zero_points import write_zero_points
from exactile_converters.external_files import external_files
from exactile_converters.from_onnx import Network, load_network
from exactile_converters.graphs.io import MapDtype, Normalization, ResultWish, statistics_as_inputs, wrap
from exactile_converters.graphs.memory_records import wrapped_memory
from exactile_converters.inspection import Inspection, inspect_network, not_tileable
from exactile_converters.strips.build import build_strips
from exactile_converters.strips.own_sizes import strips_for_own_sizes
from exactile_converters.strips.refusal import StripError
from exactile_converters.untrusted import understood

__all__ = [
    "Inspection",
    "Normalization",
    "deploy",
    "deploy_whole",
    "external_files",
    "inspect_network",
    "load_network",
]


def deploy(
    network: Network,
    *,
    image_dtype: str,
    normalization: Normalization | None = None,
    output: OutputKind = "labels",
    map_dtype: MapDtype | None = None,
    threshold: float | None = None,
    activation: Activation | None = None,
    strips: bool = True,
    image_size: tuple[int, int] | None = None,
) -> DeployedModel:
    """Deploy ``network`` for images of ``image_dtype`` ("uint8", "uint16" or "float32"); consumes the network.

    ``map_dtype`` is the type of probabilities and raw maps, float32 by default; ``threshold`` that of the probability,
    for one channel or multilabel planes (default 0.5); ``activation`` what the output still needs to be probabilities
    (default: as the graph tells). ``strips=False`` leaves the strip graphs out, where only the tile plan will be used.
    With ``image_size``, (height, width), only for images of that size is it found out whether the network takes them as
    they are, which is quicker; others are extended to a multiple of the stride where it is not known.

    Raises NotTileableError listing the obstacles, the network as it was (``deploy_whole`` is for it), ChannelError, and
    OptionError where ``output`` makes no sense.
    """
    wish = ResultWish(kind=output, map_dtype=map_dtype, threshold=threshold, activation=activation)
    with understood(network.name):
        return _deployed(
            network, image_dtype, normalization or Normalization(), wish, strips=strips, image_size=image_size
        )


def _deployed(
    network: Network,
    image_dtype: str,
    normalization: Normalization,
    wish: ResultWish,
    *,
    strips: bool,
    image_size: tuple[int, int] | None,
) -> DeployedModel:
    traced = network.with_own_sizes(network.trace(), image_size)
    if traced.geometry is None:
        raise not_tileable(network.name, traced.obstacles)
    write_windows(traced)
    write_zero_points(traced.nodes, {name: feature.dtype for name, feature in traced.features.items()})
    wrapped = wrap(
        network,
        traced.features,
        image_dtype=image_dtype,
        normalization=normalization,
        wish=wish,
    )
    write_for_provider(wrapped.model)
    contract = Contract(
        model_name=network.name,
        geometry=traced.geometry,
        image=wrapped.image,
        result=wrapped.result,
        memory=wrapped_memory(wrapped, traced.sizes),
    )
    model, reason = None, "the model was deployed without strips"
    others: Mapping[tuple[int, int], StripModel] = {}
    if strips:
        try:
            geometry, period = traced.geometry, traced.walk.period
            model, reason = build_strips(wrapped, traced.sizes, geometry.y.remainder, period=period), ""
            model, others = strips_for_own_sizes(wrapped, traced.sizes, geometry, model, image_size, period)
        except StripError as error:
            reason = str(error)
    proto = ir.to_proto(wrapped.model)
    statistics_as_inputs(proto, wrapped.image.statistics)
    mark_doubt(proto)
    return DeployedModel(
        contract=contract,
        graph=proto.SerializeToString(),
        strips=model,
        no_strips_reason=reason,
        other_strips=others,
    )
