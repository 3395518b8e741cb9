"""The proof for networks of both kinds: those that are local, and those that take statistics of the whole image."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.contract import DeployedModel
from exactile.errors import OptionError, PlanError
from exactile.geometry import Box, Geometry, Span
from exactile.planning import Wish
from exactile.sources.array import ArraySource
from exactile.sources.protocol import Source
from exactile_converters.deploy import deploy_in_passes
from exactile_converters.from_onnx import Network
from exactile_converters.geometry.feature_maps import FeatureMap
from exactile_converters.geometry.trace import Traced
from exactile_converters.graphs.io import Normalization
from exactile_converters.inspection import untileable
from exactile_converters.passes.deploy import obstacles_left
from exactile_converters.passes.fixed import with_fixed_statistics
from exactile_converters.verify.comparison import Comparison
from exactile_converters.verify.double import DoublePass, NoDoubleError
from exactile_converters.verify.passes_check import tile_along
from exactile_converters.verify.pixels import Pixels, chosen_pixels
from exactile_converters.verify.probe import Progress
from exactile_converters.verify.subject import Subject, ends_in_probability, private_copy, value_named
from exactile_converters.verify.verification import (
    Verification,
    check_channels,
    fits_one_pass,
    noise_dtype,
    verify_local,
)
from exactile_converters.verify.ways import Ways
from exactile_converters.verify.whole import whole_pass

Array = NDArray[Any]


def verify(
    network: Network,
    *,
    geometry: Geometry | None = None,
    source: Source | None = None,
    normalization: Normalization | None = None,
    tile: tuple[int, int] | None = None,
    with_sweep: bool = False,
    seed: int = 0,
    progress: Progress = lambda _stage, _done, _steps: None,
) -> Verification:
    """Prove, or refute, ``geometry`` (default: what the graph's walk claims) by running ``network``.

    A network that takes statistics of the whole image is run in passes, in every way that there is, and compared with
    one pass of it, and with one in float64. Then these statistics are fixed, and what is left is proved as for others.

    ``source`` is the image to compare on (default: noise), ``tile`` the (height, width) of the tiles.
    Raises NotTileableError where nothing is claimed, PlanError where image and tile leave no seam to look at,
    ChannelError, BudgetError, EngineError.
    """
    if seed < 0:
        raise OptionError(f"--seed must not be negative, got {seed}")
    traced, normalization = network.trace(), normalization or Normalization()
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
            progress=progress,
        )
    ways, pixels = prepared(network, source, normalization, tile, seed)
    compared, statistics = _compared(ways, pixels, tile or _suitable(ways.model), progress)
    proof = ways.proof(progress)
    found = verify_local(
        with_fixed_statistics(network, statistics),
        geometry=geometry,
        source=ArraySource(pixels.array),
        normalization=normalization,
        tile=tile or _suitable(ways.model),
        with_sweep=with_sweep,
        seed=seed,
        progress=progress,
        with_tiles=False,
    )
    return replace(found, comparison=compared, passes=replace(proof, fixed=found.comparison))


def prepared(
    network: Network,
    source: Source | None,
    normalization: Normalization,
    tile: tuple[int, int] | None,
    seed: int,
) -> tuple[Ways, Pixels]:
    """What there is to try, and what tiles are compared on."""
    dtype = str(source.dtype) if source is not None else noise_dtype(network, normalization)
    model = deploy_in_passes(network, image_dtype=dtype, normalization=normalization, output="raw")
    pixels = _pixels(network, model, source, tile or _suitable(model), dtype, seed)
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
        no_float64=why_not,
    )
    return ways, pixels


def _double(network: Network, feature: FeatureMap, traced: Traced) -> tuple[DoublePass | None, str]:
    """It, or None and why not."""
    copy = private_copy(network)
    try:
        return DoublePass(copy, value_named(copy, network.result.name or ""), feature, traced), ""
    except NoDoubleError as error:
        return None, str(error)


def _suitable(model: DeployedModel) -> tuple[int, int]:
    """Tiles that cut the image in several, in all passes, though not all halo."""
    return tile_along(model, 0), tile_along(model, 1)


def _pixels(
    network: Network, model: DeployedModel, source: Source | None, tile: tuple[int, int], dtype: str, seed: int
) -> Pixels:
    """The user's image, or noise; of a size that can be cut along both axes."""
    geometry = model.contract.geometry
    found = chosen_pixels(
        source, geometry, tile, partial(fits_one_pass, model), channels=network.channels, dtype=dtype, seed=seed
    )
    of_size = geometry.of_size(found.size)
    axes = zip((geometry.y, geometry.x), (of_size.y, of_size.x), found.size, strict=True)
    height, width = (px if not own.one_pass else px - (px - axis.remainder) % axis.stride for axis, own, px in axes)
    if (height, width) == found.size:
        return found
    crop = found.crop
    if crop is not None:
        crop = Box(Span(crop.y.start, crop.y.start + height), Span(crop.x.start, crop.x.start + width))
    return replace(found, array=np.ascontiguousarray(found.array[:height, :width]), crop=crop)


def _compared(
    ways: Ways, pixels: Pixels, tile: tuple[int, int], progress: Progress
) -> tuple[Comparison, dict[str, Array]]:
    """Tiles on ``pixels`` against one pass, and the statistics that were found."""
    progress("whole pass", 0, 1)
    whole = whole_pass(ways.subject, pixels.array, ways.model.contract.geometry, ways.normalization)
    progress("whole pass", 1, 1)
    wanted, done = whole.result[0] * whole.result[1], 0

    def advance(more: int) -> None:
        nonlocal done
        done += more
        progress("tiles", done, wanted)

    wish = Wish(plan="tile", tile=tile)
    found, statistics = ways.compared(ways.model, pixels, whole, wish, progress=advance)
    if found.tiles == 1:
        raise PlanError(
            f"an image of {pixels.size[0]} x {pixels.size[1]} pixels is one tile of {tile[0]} x {tile[1]}: "
            "there is no seam to look at. Give a larger image, a smaller --tile, or no image"
        )
    return found, statistics
