"""Deploy a network that cannot be tiled for images of one size: it runs in one pass over the whole image.

Its receptive field is unknown, so there is no halo and the only plan is one pass. Its geometry is the size of the
result relative to the image, and where in the image the result lies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

import onnx_ir as ir

from exactile.contract import Activation, Contract, DeployedModel, OutputKind, Verification
from exactile.errors import ModelError, OptionError, PlanError
from exactile.geometry import AxisGeometry, Geometry
from exactile_converters.cleanup.explicit_windows import write_windows_at
from exactile_converters.cleanup.explicit_zero_points import write_zero_points
from exactile_converters.cuda_kernels.doubts import mark_doubt
from exactile_converters.cuda_kernels.write import write_for_provider
from exactile_converters.declared.choice import chosen
from exactile_converters.geometry.feature_maps import FeatureMap
from exactile_converters.geometry.node_view import SPATIAL, Label
from exactile_converters.geometry.obstacle import Obstacle
from exactile_converters.graphs.io import MapDtype, Normalization, ResultWish, statistics_as_inputs, wrap
from exactile_converters.networks.network import Network
from exactile_converters.obstacles.find import find_obstacles
from exactile_converters.obstacles.kinds import in_the_way
from exactile_converters.one_pass.at_size import Exported, NetworkAtSize, exported_size, network_for
from exactile_converters.one_pass.maps import MapsAtSize
from exactile_converters.one_pass.memory import one_pass_memory
from exactile_converters.one_pass.refusal import OnePassError
from exactile_converters.onnx_files.untrusted import understood


def deploy_whole(
    network: Network,
    *,
    image_size: tuple[int, int],
    image_dtype: str,
    normalization: Normalization | None = None,
    output: OutputKind | None = None,
    map_dtype: MapDtype | None = None,
    threshold: float | None = None,
    activation: Activation | None = None,
) -> DeployedModel:
    """Deploy ``network`` for images of ``image_size``, (height, width) in pixels, only; the network is not modified.

    For networks with obstacles to exact tiling. The session runs the model in one pass, or raises BudgetError. The
    contract names the obstacles that remain where passes compute statistics of the whole image (``deploy_in_passes``),
    or, if there are no others, the nodes that need such statistics.

    An image whose size the network refuses is extended by reflection at the bottom and right to the next accepted size,
    and the result is cropped. Other options are those of ``deploy``.

    Raises OptionError for a network that can be tiled (use ``deploy``, which is for images of any size) and where
    ``output`` makes no sense, PlanError where the network takes no such size, where its output is not a map of the
    image, or where its memory cannot be computed, and ChannelError.
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
    traced = network.trace()
    if traced.geometry is not None:
        raise OptionError(f"{network.name} can be tiled exactly: deploy it for images of any size")
    found_obstacles = find_obstacles(network)
    left = in_the_way(found_obstacles)
    exported = exported_size(network)
    obstacles = tuple(in_short(obstacle, exported=exported) for obstacle in left or found_obstacles)
    with understood(network.name):
        try:
            found = network_for(network, image_size)
            model = _deployed(found, image_size, image_dtype, choice.normalization, choice.wish, obstacles)
            model = choice.told_in(model)
            return model if left else replace(model, contract=replace(model.contract, in_passes=True))
        except OnePassError as error:
            raise PlanError(
                f"{network.name}: {error}. It cannot be tiled, either, because of {obstacles[0]}"
            ) from error


def no_one_pass_reason(network: Network, usual: tuple[int, int]) -> str:
    """Return why the network cannot run in one pass over images of its own or of ``usual`` size; empty if it can."""
    height, width = (own or px for own, px in zip(exported_size(network), usual, strict=True))
    try:
        with understood(network.name):
            network_for(network, (height, width))
    except (OnePassError, ModelError) as error:
        return str(error)
    return ""


def in_short(obstacle: Obstacle, *, exported: Exported) -> str:
    """Return an obstacle in one line, without its remedy."""
    other = ", at any size but the one that it was exported at" if obstacle.sizes_differ and any(exported) else ""
    return f"{obstacle.summary}{other}"


def _deployed(
    found: NetworkAtSize,
    image_size: tuple[int, int],
    image_dtype: str,
    normalization: Normalization,
    wish: ResultWish,
    obstacles: tuple[str, ...],
) -> DeployedModel:
    network, maps, size = found.network, found.maps, found.size
    _write_what_is_known(maps)
    result = maps.features[network.result.name or ""]
    wrapped = wrap(network, maps.features, image_dtype=image_dtype, normalization=normalization, wish=wish)
    write_for_provider(wrapped.model)
    contract = Contract(
        model_name=network.name,
        geometry=geometry_at(result, maps.origin, size),
        image=wrapped.image,
        result=wrapped.result,
        memory=one_pass_memory(wrapped, size),
        verification=Verification(by="one pass"),
        obstacles=obstacles,
        only_size=image_size,
    )
    proto = ir.to_proto(wrapped.model)
    statistics_as_inputs(proto, wrapped.image.statistics)
    mark_doubt(proto)
    reason = f"it runs in one pass only, because of {obstacles[0]}"
    return DeployedModel(contract=contract, graph=proto.SerializeToString(), no_strips_reason=reason)


def _write_what_is_known(maps: MapsAtSize) -> None:
    """Write types, which the output's range depends on, and windows, as placed at this size, into the graph."""
    facts = maps.facts.facts
    for node in maps.nodes:
        for value in node.outputs:
            fact = facts.get(value.name or "")
            if fact is not None and fact.dtype:
                value.type = ir.TensorType(ir.DataType(fact.dtype))
    shapes: Mapping[str, tuple[int, ...]] = {name: fact.shape for name, fact in facts.items() if fact.shape is not None}
    write_windows_at(maps.nodes, shapes)
    write_zero_points(maps.nodes, {name: fact.dtype for name, fact in facts.items()})


def geometry_at(result: FeatureMap, origin: Mapping[Label, Fraction], size: tuple[int, int]) -> Geometry:
    """Return the geometry of ``result`` for images of ``size`` only: the halo is the image itself."""
    y, x = (_axis(result, origin[axis], axis, px) for axis, px in zip(SPATIAL, size, strict=True))
    return Geometry(y=y, x=x)


def _axis(result: FeatureMap, origin: Fraction, axis: Label, image_px: int) -> AxisGeometry:
    scale = result.scale[axis]
    stride = image_px * scale.denominator
    return AxisGeometry(
        stride=stride,
        before=image_px,
        after=image_px,
        scale=scale,
        origin=origin,
        size_constant=result.shape[result.labels.index(axis)] - image_px * scale,
        remainder=image_px % stride,
        others=(),
    )
