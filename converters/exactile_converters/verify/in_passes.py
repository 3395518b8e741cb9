"""Verify networks of both kinds: local ones, and those with statistics of the whole image."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.contract import DeployedModel
from exactile.errors import BudgetError, OptionError
from exactile.geometry import Box, Geometry, Span
from exactile.machine.memory import default_budget_bytes, resident_bytes, return_large_blocks_at_once
from exactile.planning import Wish
from exactile.sources.array import ArraySource
from exactile.sources.protocol import Source
from exactile_converters.deploy import deploy_in_passes
from exactile_converters.geometry.feature_maps import FeatureMap
from exactile_converters.geometry.trace import Traced
from exactile_converters.graphs.io import Normalization
from exactile_converters.inspection import untileable
from exactile_converters.networks.network import Network
from exactile_converters.passes.deploy import obstacles_left
from exactile_converters.passes.fixed import with_fixed_statistics
from exactile_converters.plain_runs.bounded import TooLargeError, check_room
from exactile_converters.plain_runs.subject import Subject, ends_in_probability, private_copy, value_named
from exactile_converters.verify.comparison import Comparison
from exactile_converters.verify.double import DoublePass, NoDoubleError
from exactile_converters.verify.meter import Meter, Progress
from exactile_converters.verify.passes_check import tile_along
from exactile_converters.verify.pixels import Pixels, chosen_pixels
from exactile_converters.verify.room import Room
from exactile_converters.verify.verification import Verification, check_channels, no_seam, noise_dtype, verify_local
from exactile_converters.verify.ways import Ways
from exactile_converters.verify.whole import whole_pass

Array = NDArray[Any]

WEIGHT_COPIES = 12
"""Three copies of the network are probed; ONNX Runtime holds each, twice while it is opened."""


def verify(
    network: Network,
    *,
    geometry: Geometry | None = None,
    source: Source | None = None,
    normalization: Normalization | None = None,
    tile: tuple[int, int] | None = None,
    with_sweep: bool = False,
    seed: int = 0,
    memory_bytes: int | None = None,
    progress: Progress = lambda _stage, _done, _steps: None,
) -> Verification:
    """Prove, or refute, ``geometry`` (default: what the graph's walk claims) by running ``network``.

    A network with statistics of the whole image is run in passes, in every possible way, and compared with one pass,
    and with one in float64. Then these statistics are fixed, and the rest is verified as for other networks.

    ``source`` is the image to compare on (default: noise), ``tile`` the (height, width) of the tiles. ``memory_bytes``
    bounds the resident memory of the process (default: a safe share of what is free); for the rest of the process, the
    C library returns large blocks as soon as they are freed. ``progress`` gets the current stage, and the pixels
    computed and to compute in the whole verification.

    Raises NotTileableError where nothing is claimed, PlanError where image and tile leave no seam to compare,
    ChannelError, BudgetError where the memory does not suffice, EngineError.
    """
    if seed < 0:
        raise OptionError(f"--seed must not be negative, got {seed}")
    return_large_blocks_at_once()
    allowed, meter = memory_bytes or default_budget_bytes(), Meter(progress)
    try:
        check_room(resident_bytes() + WEIGHT_COPIES * _weights(network), allowed, "the weights")
        found = _verified(network, geometry, source, normalization or Normalization(), tile,
                          with_sweep=with_sweep, seed=seed, allowed_bytes=allowed, meter=meter)  # fmt: skip
    except TooLargeError as error:
        raise BudgetError(f"{network.name}: {error}; raise --memory") from error
    meter.finish()
    return found


def _weights(network: Network) -> int:
    constants = (value.const_value for value in network.model.graph.initializers.values())
    return sum(constant.nbytes for constant in constants if constant is not None)


def _verified(
    network: Network,
    geometry: Geometry | None,
    source: Source | None,
    normalization: Normalization,
    tile: tuple[int, int] | None,
    *,
    with_sweep: bool,
    seed: int,
    allowed_bytes: int,
    meter: Meter,
) -> Verification:
    traced = network.trace()
    if traced.geometry is not None or obstacles_left(network):
        if traced.geometry is None:
            raise untileable(network)
        return verify_local(
            network,
            geometry=geometry,
            source=source,
            normalization=normalization,
            tile=tile,
            with_sweep=with_sweep,
            seed=seed,
            allowed_bytes=allowed_bytes,
            meter=meter,
        )
    ways, pixels = prepared(network, source, normalization, tile, seed, allowed_bytes)
    tile = tile or _suitable(ways.model)
    meter.expect(ways.work_px(pixels.size) + ways.all_work_px)
    compared, statistics = _compared(ways, pixels, tile, meter)
    proof = ways.proof(meter)
    found = verify_local(
        with_fixed_statistics(network, statistics),
        geometry=geometry,
        source=ArraySource(pixels.array),
        normalization=normalization,
        tile=tile,
        with_sweep=with_sweep,
        seed=seed,
        allowed_bytes=allowed_bytes,
        meter=meter,
        with_tiles=False,
    )
    return replace(found, comparison=compared, passes=replace(proof, fixed=found.comparison))


def prepared(
    network: Network,
    source: Source | None,
    normalization: Normalization,
    tile: tuple[int, int] | None,
    seed: int,
    allowed_bytes: int,
) -> tuple[Ways, Pixels]:
    """Return the ways to try, and the pixels on which tiles are compared."""
    dtype = str(source.dtype) if source is not None else noise_dtype(network, normalization)
    model = deploy_in_passes(network, image_dtype=dtype, normalization=normalization, output="raw")
    pixels = _pixels(network, model, source, tile or _suitable(model), seed, allowed_bytes)
    check_channels(model, pixels, network.channels)
    local = with_fixed_statistics(network)
    traced = local.trace()
    feature = traced.features[local.result.name or ""]
    double, why_not = _double(network, feature, traced)
    copy = private_copy(network)
    ways = Ways(
        model=model,
        subject=Subject(copy, value_named(copy, network.result.name or ""), feature),
        double=double,
        normalization=normalization,
        probability=ends_in_probability(network),
        seed=seed,
        allowed_bytes=allowed_bytes,
        no_float64=why_not,
    )
    return ways, pixels


def _double(network: Network, feature: FeatureMap, traced: Traced) -> tuple[DoublePass | None, str]:
    """Return the pass in float64, or None and the reason."""
    copy = private_copy(network)
    try:
        return DoublePass(copy, value_named(copy, network.result.name or ""), feature, traced), ""
    except NoDoubleError as error:
        return None, str(error)


def _suitable(model: DeployedModel) -> tuple[int, int]:
    """Return tiles that cut the image into several in all passes, and that are not all halo."""
    return tile_along(model, 0), tile_along(model, 1)


def _pixels(
    network: Network, model: DeployedModel, source: Source | None, tile: tuple[int, int], seed: int, allowed_bytes: int
) -> Pixels:
    """Return the user's image, or noise, of a size that can be cut along both axes."""
    geometry = model.contract.geometry
    room, dtype = Room(model=model, allowed_bytes=allowed_bytes), model.contract.image.dtype
    found, _ = chosen_pixels(source, geometry, [tile], room, channels=network.channels, dtype=dtype, seed=seed)
    of_size = geometry.of_size(found.size)
    axes = zip((geometry.y, geometry.x), (of_size.y, of_size.x), found.size, strict=True)
    height, width = (px if not own.one_pass else px - (px - axis.remainder) % axis.stride for axis, own, px in axes)
    if (height, width) == found.size:
        return found
    crop = found.crop
    if crop is not None:
        crop = Box(Span(crop.y.start, crop.y.start + height), Span(crop.x.start, crop.x.start + width))
    return replace(found, array=np.ascontiguousarray(found.array[:height, :width]), crop=crop)


def _compared(ways: Ways, pixels: Pixels, tile: tuple[int, int], meter: Meter) -> tuple[Comparison, dict[str, Array]]:
    """Compare tiles on ``pixels`` with one pass; also return the statistics."""
    meter.stage("whole pass")
    whole = whole_pass(ways.subject, pixels.array, ways.model.contract.geometry, ways.normalization)
    wanted = whole.result[0] * whole.result[1]
    tiles_px = ways.work_px(pixels.size)

    def advance(more: int) -> None:
        meter.advance(more * tiles_px // wanted)

    meter.stage("tiles")
    wish = Wish(plan="tile", tile=tile)
    found, statistics = ways.compared(ways.model, pixels, whole, wish, progress=advance)
    if found.tiles == 1:
        raise no_seam(pixels, tile, ways.allowed_bytes)
    return found, statistics
