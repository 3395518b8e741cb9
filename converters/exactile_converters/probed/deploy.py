"""Deploy a network that no rule proves local, with the halo and the period that runs showed. It is not proven.

This happens only on request. Its tiles are compared with one pass before it is used, and its contract and all records
of runs say that it is not proven.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import onnx
import onnx_ir as ir

from exactile.contract import Activation, Contract, DeployedModel, MemoryModel, OutputKind, Verification
from exactile.errors import ModelError, NotTileableError, OptionError, VerificationError
from exactile.geometry import Geometry, round_up
from exactile_converters.cleanup.explicit_zero_points import write_zero_points
from exactile_converters.cuda_kernels.doubts import mark_doubt
from exactile_converters.cuda_kernels.write import write_for_provider
from exactile_converters.declared.choice import chosen
from exactile_converters.declared.feeding import as_fed
from exactile_converters.geometry.node_view import Labels
from exactile_converters.geometry.obstacle import Obstacle
from exactile_converters.graphs.image_in import fitting_image_type
from exactile_converters.graphs.io import MapDtype, Normalization, ResultWish, Wrapped, statistics_as_inputs, wrap
from exactile_converters.networks.network import Network
from exactile_converters.one_pass.maps import MapsAtSize, maps_at
from exactile_converters.one_pass.memory import one_pass_memory
from exactile_converters.one_pass.refusal import OnePassError
from exactile_converters.onnx_files.untrusted import understood
from exactile_converters.passes.deploy import obstacles_left
from exactile_converters.probed.check import Steady, check_steady, sizes_in_words
from exactile_converters.probed.locality import LOOKED_AT_PX, USUAL_SECONDS, Locality, find_locality
from exactile_converters.probed.refusal import NotLocalError
from exactile_converters.strips.memory import graph_memory
from exactile_converters.strips.refusal import StripError

LEAST_MEMORY_PX = 1024
"""The memory of its graph is measured for this many pixels along each axis, and for twice as many."""

NO_STRIPS = "no rule describes how to process its rows in strips: runs showed only its receptive field"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trusted:
    """What runs showed of a network, and what was compared: ``deploy_probed`` relies on it."""

    locality: Locality
    steady: Steady
    obstacles: tuple[Obstacle, ...]

    @property
    def verification(self) -> Verification:
        """Return the verification for the contract."""
        y, x = self.locality.y, self.locality.x
        first = self.obstacles[0]
        return Verification(
            by="probe",
            note=(
                f"no rule proves the network local ({first.op} {first.node!r}: {first.reason}); in "
                f"{self.locality.runs} runs pixels farther than {y.before} above, {y.after} below, {x.before} left and "
                f"{x.after} right of a box changed nothing, and tiles hold {y.margin} and {x.margin} more (height, "
                f"width); {sizes_in_words(self.steady)}"
            ),
        )


def trusted(network: Network, *, seconds: float = USUAL_SECONDS) -> Trusted:
    """Examine ``network``, which is not modified, by running it, and compare its tiles with one pass, ``seconds`` each.

    Raises OptionError for a network that rules prove, and VerificationError where runs do not show it to be local.
    """
    traced = network.trace()
    with understood(network.name):
        obstacles = obstacles_left(network) if traced.geometry is None else ()
    if not obstacles:
        raise OptionError(f"{network.name} runs exactly by the rules; leave --trust-probe out")
    try:
        with understood(network.name):
            locality = find_locality(network, seconds=seconds)
            fed = as_fed(network)
            copy = fed.copy()
            maps = _maps(copy)
            plain = _deployed(
                copy, maps, locality.geometry, fitting_image_type(fed), Normalization(), ResultWish(kind="raw")
            )
            result = maps.features[fed.result.name or ""]
            steady = check_steady(fed, plain, result, locality, seconds=seconds)
    except NotLocalError as error:
        raise VerificationError(
            f"{network.name}: --trust-probe finds nothing to trust: {error}. No rule proves the network local, either, "
            f"because of {obstacles[0]} exactile run MODEL.onnx --plan whole makes one pass over the image"
        ) from error
    return Trusted(locality=locality, steady=steady, obstacles=tuple(obstacles))


def deploy_probed(
    network: Network,
    *,
    image_dtype: str,
    normalization: Normalization | None = None,
    output: OutputKind | None = None,
    map_dtype: MapDtype | None = None,
    threshold: float | None = None,
    activation: Activation | None = None,
    found: Trusted | None = None,
) -> DeployedModel:
    """Deploy ``network``, which is not modified, for images of any size, by what runs of it show, which is not proven.

    ``found`` is the result of ``trusted``, which is called if it is None. Other options are those of ``deploy``.

    Raises VerificationError where runs do not show the network to be local, OptionError for one that rules prove, and
    where ``output`` makes no sense, and ChannelError.
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
    found = found or trusted(network)
    copy = network.copy()
    with understood(network.name):
        model = _deployed(
            copy,
            _maps(copy),
            found.steady.geometry,
            image_dtype,
            choice.normalization,
            choice.wish,
            verification=found.verification,
        )
    return choice.told_in(model)


def result_axes(network: Network) -> Labels:
    """Return the axes of its output. Raises NotTileableError."""
    return _maps(network).features[network.result.name or ""].labels


def _maps(network: Network) -> MapsAtSize:
    """Return its maps at one size."""
    try:
        return maps_at(network, (LOOKED_AT_PX, LOOKED_AT_PX))
    except OnePassError as error:
        raise NotTileableError(f"{network.name}: {error}") from error


def _deployed(
    network: Network,
    maps: MapsAtSize,
    geometry: Geometry,
    image_dtype: str,
    normalization: Normalization,
    wish: ResultWish,
    verification: Verification | None = None,
) -> DeployedModel:
    """Deploy ``network``, which is consumed."""
    _write_types(maps)
    wrapped = wrap(network, maps.features, image_dtype=image_dtype, normalization=normalization, wish=wish)
    write_for_provider(wrapped.model)
    proto = ir.to_proto(wrapped.model)
    statistics_as_inputs(proto, wrapped.image.statistics)
    mark_doubt(proto)
    contract = Contract(
        model_name=network.name,
        geometry=geometry,
        image=wrapped.image,
        result=wrapped.result,
        memory=_memory(wrapped, proto, geometry),
        verification=verification or Verification(by="probe"),
    )
    return DeployedModel(contract=contract, graph=proto.SerializeToString(), no_strips_reason=NO_STRIPS)


def _write_types(maps: MapsAtSize) -> None:
    """Write types, which the output's range depends on, into the graph, and omitted zero points."""
    facts = maps.facts.facts
    for node in maps.nodes:
        for value in node.outputs:
            fact = facts.get(value.name or "")
            if fact is not None and fact.dtype:
                value.type = ir.TensorType(ir.DataType(fact.dtype))
    write_zero_points(maps.nodes, {name: fact.dtype for name, fact in facts.items()})


def _memory(wrapped: Wrapped, proto: onnx.ModelProto, geometry: Geometry) -> MemoryModel:
    """Return memory by height and width where shapes are known at several sizes, else in proportion to the pixels."""
    heights, widths = (
        (first, 2 * first) for first in (round_up(LEAST_MEMORY_PX, axis.stride) for axis in (geometry.y, geometry.x))
    )
    with suppress(StripError):
        return graph_memory(proto, heights, widths)
    try:
        return one_pass_memory(wrapped, (heights[0], widths[0]))
    except OnePassError as error:
        raise ModelError(f"its memory cannot be computed: {error}") from error
