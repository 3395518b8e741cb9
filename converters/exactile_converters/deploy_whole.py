"""A network that cannot be tiled, deployed for images of one size: it runs in one pass over the whole image.

Only the size is known of it, not how far it looks: so there is no halo, and no plan but one pass. What is told of
geometry is the size of its result against the image's, where both have the same edges.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

import onnx_ir as ir

from exactile.contract import Activation, Contract, DeployedModel, OutputKind, Verification
from exactile.errors import ModelError, OptionError, PlanError
from exactile.geometry import AxisGeometry, Geometry
from exactile_converters.constant_branches import take_branches_at
from exactile_converters.explicit_windows import write_windows_at
from exactile_converters.from_onnx import Network, clean
from exactile_converters.geometry.feature_maps import FeatureMap, image_shape
from exactile_converters.geometry.node_view import SPATIAL, Label
from exactile_converters.geometry.obstacle import Obstacle
from exactile_converters.graphs.io import MapDtype, Normalization, ResultWish, statistics_as_inputs, wrap
from exactile_converters.one_pass.maps import MapsAtSize, maps_at
from exactile_converters.one_pass.memory import one_pass_memory
from exactile_converters.one_pass.refusal import OnePassError
from exactile_converters.untrusted import understood


def deploy_whole(
    network: Network,
    *,
    image_size: tuple[int, int],
    image_dtype: str,
    normalization: Normalization | None = None,
    output: OutputKind = "labels",
    map_dtype: MapDtype | None = None,
    threshold: float | None = None,
    activation: Activation | None = None,
) -> DeployedModel:
    """Deploy ``network`` for images of ``image_size``, (height, width) in pixels, alone; the network stays as it is.

    For networks with obstacles to exact tiling, which the contract then names; the session runs the model in one pass,
    or raises BudgetError. Other options are those of ``deploy``.

    Raises OptionError for a network that can be tiled (``deploy`` is for it, and for images of any size) and where
    ``output`` makes no sense, PlanError where the network does not take this size, where its output is no map of the
    image, or where its memory cannot be told, and ChannelError.
    """
    wish = ResultWish(kind=output, map_dtype=map_dtype, threshold=threshold, activation=activation)
    traced = network.trace()
    if traced.geometry is not None:
        raise OptionError(f"{network.name} can be tiled exactly: deploy it for images of any size")
    obstacles = tuple(in_short(obstacle, exported=_exported(network)) for obstacle in traced.obstacles)
    with understood(network.name):
        try:
            check_exported_size(network, image_size)
            copy = _at_size(network, image_size)
            return _deployed(copy, image_size, image_dtype, normalization or Normalization(), wish, obstacles)
        except OnePassError as error:
            raise PlanError(
                f"{network.name}: {error}. It cannot be tiled, either, because of {obstacles[0]}"
            ) from error


def no_one_pass_reason(network: Network, usual: tuple[int, int]) -> str:
    """Why the network is not run in one pass; empty where it is, over images of its own size, or of a ``usual`` one."""
    height, width = (own or px for own, px in zip(_exported(network), usual, strict=True))
    try:
        with understood(network.name):
            maps_at(_at_size(network, (height, width)), (height, width))
    except (OnePassError, ModelError) as error:
        return str(error)
    return ""


Exported = tuple[int | None, int | None]
"""Height and width at which a network was exported; None where they may vary."""


def in_short(obstacle: Obstacle, *, exported: Exported) -> str:
    """An obstacle in one line, without its remedy."""
    other = ", at any size but the one that it was exported at" if obstacle.sizes_differ and any(exported) else ""
    return f"{obstacle.op} {obstacle.node!r}: {obstacle.reason}{other}"


def _exported(network: Network) -> Exported:
    dims = dict(zip(network.labels, network.image.shape or (), strict=False))
    height, width = (dim if isinstance(dim := dims.get(axis), int) and dim > 0 else None for axis in SPATIAL)
    return height, width


def check_exported_size(network: Network, size: tuple[int, int]) -> None:
    """Raises OnePassError where the network was exported at another size, which ONNX Runtime then insists on."""
    exported = _exported(network)
    if all(dim in (None, side) for dim, side in zip(exported, size, strict=True)):
        return
    height, width = (dim if dim is not None else "any" for dim in exported)
    raise OnePassError(
        f"it was exported for images of {height} x {width} pixels, and this one has {size[0]} x {size[1]}; export it "
        "with dynamic height and width, or give it images of its size"
    )


def _at_size(network: Network, size: tuple[int, int]) -> Network:
    """A copy in which what is decided by the image's size is decided."""
    copy, name = network.copy(), network.result.name
    if not take_branches_at(copy.model, copy.image, image_shape(network.labels, network.channels, size)):
        return copy
    clean(copy.model)
    return replace(copy, result=next(value for value in copy.model.graph.outputs if value.name == name))


def _deployed(
    network: Network,
    size: tuple[int, int],
    image_dtype: str,
    normalization: Normalization,
    wish: ResultWish,
    obstacles: tuple[str, ...],
) -> DeployedModel:
    maps = maps_at(network, size)
    _write_what_is_known(maps)
    result = maps.features[network.result.name or ""]
    wrapped = wrap(network, maps.features, image_dtype=image_dtype, normalization=normalization, wish=wish)
    contract = Contract(
        model_name=network.name,
        geometry=geometry_at(result, size),
        image=wrapped.image,
        result=wrapped.result,
        memory=one_pass_memory(wrapped, size),
        verification=Verification(by="one pass"),
        obstacles=obstacles,
    )
    proto = ir.to_proto(wrapped.model)
    statistics_as_inputs(proto, wrapped.image.statistics)
    reason = f"it runs in one pass only, because of {obstacles[0]}"
    return DeployedModel(contract=contract, graph=proto.SerializeToString(), no_strips_reason=reason)


def _write_what_is_known(maps: MapsAtSize) -> None:
    """Types into the graph, which the range of the output depends on; and windows, as they lie at this size."""
    facts = maps.facts.facts
    for node in maps.nodes:
        for value in node.outputs:
            fact = facts.get(value.name or "")
            if fact is not None and fact.dtype:
                value.type = ir.TensorType(ir.DataType(fact.dtype))
    shapes: Mapping[str, tuple[int, ...]] = {name: fact.shape for name, fact in facts.items() if fact.shape is not None}
    write_windows_at(maps.nodes, shapes)


def geometry_at(result: FeatureMap, size: tuple[int, int]) -> Geometry:
    """That of ``result`` for images of ``size`` and no other: the halo is the image itself."""
    y, x = (_axis(result.scale[axis], result, axis, px) for axis, px in zip(SPATIAL, size, strict=True))
    return Geometry(y=y, x=x)


def _axis(scale: Fraction, result: FeatureMap, axis: Label, image_px: int) -> AxisGeometry:
    stride = image_px * scale.denominator
    return AxisGeometry(
        stride=stride,
        before=image_px,
        after=image_px,
        scale=scale,
        size_constant=result.shape[result.labels.index(axis)] - image_px * scale,
        remainder=image_px % stride,
    )
