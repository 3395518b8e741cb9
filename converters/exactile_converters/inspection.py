"""Examine a network: its geometry and cost, or its obstacles, with its inputs and outputs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

from exactile.contract import MemoryModel, ResultOutput, StripModel
from exactile.errors import ChannelError, ModelError, NotTileableError, OptionError
from exactile.geometry import Geometry
from exactile_converters.declared.told import DeclaredTold, declared_told
from exactile_converters.deploy_whole import no_one_pass_reason
from exactile_converters.executed_graphs.strips import executed_strips
from exactile_converters.geometry.cost import Cost, cost_at, cost_per_pixel
from exactile_converters.geometry.halo_path import HaloProfile, halo_profile
from exactile_converters.geometry.node_view import SPATIAL
from exactile_converters.geometry.obstacle import Obstacle
from exactile_converters.geometry.probe import Memory
from exactile_converters.geometry.trace import Traced
from exactile_converters.graphs.fewer_bits import is_of_fewer_bits
from exactile_converters.graphs.image_in import fitting_image_type
from exactile_converters.graphs.io import Normalization, ResultWish, Wrapped, wrap
from exactile_converters.graphs.memory_records import wrapped_memory
from exactile_converters.networks.network import Network
from exactile_converters.obstacles.find import find_obstacles
from exactile_converters.obstacles.kinds import in_the_way
from exactile_converters.onnx_files.untrusted import understood
from exactile_converters.passes.told import PassesTold, passes_of
from exactile_converters.placed.told import Told, told_of
from exactile_converters.strips.build import build_strips
from exactile_converters.strips.refusal import StripError

if TYPE_CHECKING:
    from exactile_converters.probed.locality import Locality

PROBED_MAC_PER_PIXEL = 20_000
PROBED_SECONDS = 5.0
"""A refused network of at most this cost is probed for so many seconds without being asked for."""

COST_SIZE_PX = 1024
"""Image height and width at which the cost of a network that cannot be tiled is counted, unless it fixes its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """A graph input or output; unknown dimensions are names, or "?".

    ``image_channels`` is the range of the image's channels that an input takes, half-open.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    image_channels: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """The result of inspecting a network.

    ``geometry`` and ``profile`` are None exactly when there are obstacles; ``memory`` also when it is unknown.
    ``result`` is what ``run`` makes of the network's output by default; None where that cannot be labels. ``strips`` is
    None where the network cannot be run in strips; ``no_strips_reason`` then says why. ``no_one_pass_reason`` says why
    a network with obstacles cannot be run in one pass, either; empty where it can.

    ``obstacles`` has one entry for each kind, by cause: first those that prevent tiling, then statistics of the whole
    image (``find_obstacles``). ``passes`` are those of a network whose only obstacles are such statistics. ``declared``
    is what the network's file declares in addition; None where it declares nothing. ``probed`` is what runs of a
    refused network show, ``not_probed_reason`` why they show nothing or were not made; both are empty for a network
    that is not refused.
    """

    geometry: Geometry | None
    obstacles: tuple[Obstacle, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    cost: Cost
    profile: HaloProfile | None
    memory: MemoryModel | None
    strips: StripModel | None
    no_strips_reason: str
    no_one_pass_reason: str
    result: ResultOutput | None
    passes: PassesTold | None = None
    declared: DeclaredTold | None = None
    probed: Locality | None = None
    not_probed_reason: str = ""

    def plot(self, path: Path, *, title: str, overwrite: bool = False) -> None:
        """Draw where the halo comes from. Raises NotTileableError, OptionError without matplotlib, and SinkError."""
        from exactile_converters.plot import plot_halo

        if self.profile is None:
            raise not_tileable(title, self.obstacles)
        plot_halo(self.profile, path, title=title, overwrite=overwrite)


def inspect_network(network: Network, *, trust_probe: bool = False) -> Inspection:
    """Walk the network's graph and report. The network is not modified.

    A small network that is refused is also probed by running it, for a few seconds at most. With ``trust_probe``, any
    refused network is probed, for as long as ``find_locality`` usually takes.
    """
    traced = network.with_own_sizes(network.trace())
    tileable = traced.geometry is not None
    wrapped = _wrapped(network, traced) if tileable else None
    memory: Memory = {}
    strips, reason = _strips(network, wrapped, traced, memory)
    cost = cost_per_pixel(traced.nodes, traced.features) if tileable else _cost_of_one_pass(network, traced)
    passes = None if tileable else passes_of(network)
    probed, not_probed = None, ""
    if not tileable and passes is None:
        probed, not_probed = _probed(network, cost, asked=trust_probe)
    return Inspection(
        geometry=traced.geometry,
        obstacles=() if tileable else find_obstacles(network),
        inputs=_inputs(network),
        outputs=tuple(map(_tensor, network.model.graph.outputs)),
        cost=cost,
        profile=halo_profile(traced, network.result.name or "") if tileable else None,
        memory=wrapped_memory(wrapped, traced.sizes, memory) if wrapped is not None else None,
        strips=strips,
        no_strips_reason=reason,
        no_one_pass_reason="" if tileable else no_one_pass_reason(network, (COST_SIZE_PX, COST_SIZE_PX)),
        result=wrapped.result if wrapped is not None else None,
        passes=passes,
        declared=declared_told(network.declared, traced.geometry),
        probed=probed,
        not_probed_reason=not_probed,
    )


def _probed(network: Network, cost: Cost, *, asked: bool) -> tuple[Locality | None, str]:
    """Return what runs of a refused network show, or why they show nothing."""
    from exactile_converters.probed.locality import USUAL_SECONDS, find_locality
    from exactile_converters.probed.refusal import NotLocalError, TooSlowError

    if not asked and (cost.mac_per_pixel is None or cost.mac_per_pixel > PROBED_MAC_PER_PIXEL):
        return None, "it was not probed by running it; --trust-probe does that"
    try:
        with understood(network.name):
            return find_locality(network, seconds=USUAL_SECONDS if asked else PROBED_SECONDS), ""
    except TooSlowError as error:
        return None, str(error) if asked else f"{error}; --trust-probe takes longer"
    except (NotLocalError, ModelError) as error:
        return None, f"runs do not show it to be local, either: {error}"


def not_tileable(name: str, obstacles: tuple[Obstacle, ...], *, way_out: str = "") -> NotTileableError:
    """Return the error that lists the obstacles, and says at its end what can be done instead."""
    shown = "\n".join(f"  {obstacle}" for obstacle in obstacles[:10])
    more = f"\n  ... and {len(obstacles) - 10} more" if len(obstacles) > 10 else ""
    return NotTileableError(f"{name} cannot be tiled exactly:\n{shown}{more}" + (f"\n{way_out}" if way_out else ""))


def untileable(network: Network, *, way_out: str = "") -> NotTileableError:
    """Return the error for a ``network`` with obstacles: those that prevent passes, or, if there are none, tiles."""
    found = find_obstacles(network)
    return not_tileable(network.name, in_the_way(found) or found, way_out=way_out)


def _inputs(network: Network) -> tuple[Tensor, ...]:
    found, first = [], 0
    for image in network.inputs:
        found.append(replace(_tensor(image.value), image_channels=(first, first + image.channels)))
        first += image.channels
    return tuple(found)


def _tensor(value: ir.Value) -> Tensor:
    dims = value.shape if value.shape is not None else ()
    shape = tuple(dim if isinstance(dim, int) else (dim.value or "?") for dim in dims)
    return Tensor(name=value.name or "?", dtype=value.dtype.numpy().name if value.dtype else "?", shape=shape)


def _cost_of_one_pass(network: Network, traced: Traced) -> Cost:
    fixed = dict(zip(network.labels, network.image.shape or (), strict=False))
    height, width = (size if isinstance(size := fixed.get(axis), int) else COST_SIZE_PX for axis in SPATIAL)
    known = {"n": 1, "c": network.channels, "y": height, "x": width}
    shape = tuple(known[label] for label in network.labels)
    return cost_at(network.model, traced.nodes, network.image.name or "", shape, (height, width))


def _strips(network: Network, wrapped: Wrapped | None, traced: Traced, memory: Memory) -> tuple[StripModel | None, str]:
    """Return the strip model, or why there is none."""
    if wrapped is None or traced.geometry is None:
        return None, "the network cannot be tiled exactly" if traced.geometry is None else "its output is not a map"
    if is_of_fewer_bits(network.model) and not traced.geometry.placed:
        found = executed_strips(network, wrapped, traced, None, normalization=Normalization(), wish=ResultWish())
        return found[0], found[1]
    try:
        remainder, told = traced.geometry.y.remainder, _told(wrapped, traced) if traced.geometry.placed else None
        period = traced.walk.period
        return build_strips(wrapped, traced.sizes, remainder, period=period, told=told, memory=memory), ""
    except StripError as error:
        return None, str(error)


def _told(wrapped: Wrapped, traced: Traced) -> Told:
    """Return which nodes of the copy get the position as an input; the trace has the network's own operators."""
    told = told_of(traced)
    found = {node.outputs[0].name: one for node, one in told.placed.items()}
    nodes = {node: found[name] for node in wrapped.model.graph if (name := node.outputs[0].name) in found}
    return replace(told, placed=nodes)


def _wrapped(network: Network, traced: Traced) -> Wrapped | None:
    """Return a copy for uint8 images that makes the default result; None where that cannot be."""
    copy = network.copy()
    output = network.declared.output if network.declared is not None else None
    try:
        return wrap(
            copy,
            traced.features,
            image_dtype=fitting_image_type(copy),
            normalization=Normalization(),
            wish=ResultWish(kind=output or "labels"),
        )
    except (ModelError, OptionError, ChannelError):
        return None
