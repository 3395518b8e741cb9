"""The whole verification: probe, tiles against one pass, and the sweep."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

from exactile.contract import DeployedModel
from exactile.errors import BudgetError, EngineError, PlanError
from exactile.geometry import Geometry
from exactile.plan.budget import format_bytes
from exactile.plan.tiles import TilePlan
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource
from exactile.sources.protocol import Source
from exactile_converters.deploy import deploy
from exactile_converters.geometry.trace import Traced
from exactile_converters.graphs.io import Normalization
from exactile_converters.inspection import untileable
from exactile_converters.networks.network import Network
from exactile_converters.plain_runs.bounded import Bounded
from exactile_converters.plain_runs.claim import Axis, AxisProbe
from exactile_converters.plain_runs.difference import compare
from exactile_converters.plain_runs.subject import Subject, ends_in_probability, private_copy, scores_of
from exactile_converters.verify.comparison import Comparison
from exactile_converters.verify.meter import Meter
from exactile_converters.verify.pixels import Pixels, chosen_pixels, suitable_tiles
from exactile_converters.verify.probe import Subjects, probe_axis, probe_pixels
from exactile_converters.verify.room import Room
from exactile_converters.verify.sweep import Sweep, sweep, sweep_pixels
from exactile_converters.verify.ways import PassesProof
from exactile_converters.verify.whole import WholePass, whole_pass

AXES: tuple[Axis, ...] = ("y", "x")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What was claimed and what was found. ``probed_tensor`` is the map in which influences were measured.

    ``comparison`` is None where the network does not run at sizes that the claim accepts; ``refusal`` is its error. For
    a network with statistics of the whole image, the claim is that of the network with these statistics fixed;
    ``passes`` is the result of every way to run it with the image's own statistics.
    """

    model_name: str
    geometry: Geometry
    seed: int
    probed_tensor: str
    probes: tuple[AxisProbe, AxisProbe]
    comparison: Comparison | None
    sweep: Sweep | None
    refusal: str = ""
    passes: PassesProof | None = None

    @property
    def holds(self) -> bool:
        """Return whether the claimed geometry suffices, by the probe and by tiling, and passes equal one pass."""
        tiled = self.comparison is not None and self.comparison.holds
        return tiled and all(probe.holds for probe in self.probes) and (self.passes is None or self.passes.holds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """``tile`` of ``model``, as ``plan`` cuts ``pixels``, to be compared with one pass over them."""

    model: DeployedModel
    pixels: Pixels
    plan: TilePlan

    @property
    def work_px(self) -> int:
        """Return the pixels that both compute."""
        height, width = self.plan.tile_shape
        return self.pixels.size[0] * self.pixels.size[1] + len(self.plan) * height * width


def verify_local(
    network: Network,
    *,
    geometry: Geometry | None,
    source: Source | None,
    normalization: Normalization,
    tile: tuple[int, int] | None,
    with_sweep: bool,
    seed: int,
    allowed_bytes: int,
    meter: Meter,
    with_tiles: bool = True,
) -> Verification:
    """Verify a network without statistics of the whole image; arguments are those of ``verify``.

    Without ``with_tiles`` or a sweep, it is only probed.
    """
    traced = network.trace()
    if traced.geometry is None:
        raise untileable(network)
    claimed = geometry or traced.geometry
    dtype = str(source.dtype) if source is not None else noise_dtype(network, normalization)
    model = deploy(private_copy(network), image_dtype=dtype, normalization=normalization, output="raw", strips=False)
    trial = None
    if with_tiles or with_sweep:
        trial = _trial(network, model, geometry, source, tile, seed, allowed_bytes)
        meter.expect(trial.work_px)
    if with_sweep and trial is not None:
        meter.expect(sweep_pixels(trial.pixels.size, trial.model.contract.geometry, trial.plan.tile_shape))
    scores = scores_of(network, traced.features).name or ""
    meter.expect(sum(probe_pixels(axis, claimed) for axis in AXES))
    subjects = Subjects.of(network, scores, traced.features[scores]).within(model, allowed_bytes, meter.advance)
    y, x = (probe_axis(axis, subjects, claimed, seed=seed, progress=meter.stage) for axis in AXES)
    del subjects  # each holds the weights
    compared, swept, refusal = None, None, ""
    try:
        if trial is not None:
            subject = Bounded(_plain(network, traced), model, allowed_bytes, meter.advance)
            compared, whole = _compared(network, trial, subject, normalization, allowed_bytes, meter)
            if with_sweep:
                probability = ends_in_probability(network)
                swept = sweep(
                    subject, whole, whole.geometry, compared.tile, probability=probability, progress=meter.stage
                )
    except EngineError as error:
        if y.holds and x.holds:
            raise  # nothing contradicts the claim: the engine failed for another reason
        refusal = str(error)
    return Verification(
        model_name=network.name,
        geometry=claimed,
        seed=seed,
        probed_tensor=scores,
        probes=(y, x),
        comparison=compared,
        sweep=swept,
        refusal=refusal,
    )


def _plain(network: Network, traced: Traced) -> Subject:
    copy = private_copy(network)
    return Subject(copy, copy.result, traced.features[network.result.name or ""])


def _trial(
    network: Network,
    deployed: DeployedModel,
    given: Geometry | None,
    source: Source | None,
    tile: tuple[int, int] | None,
    seed: int,
    allowed_bytes: int,
) -> Trial:
    """Prepare the comparison. Raises ChannelError, PlanError where there is no seam to compare, BudgetError."""
    claimed = given or deployed.contract.geometry
    pixels, suitable = chosen_pixels(
        source,
        claimed,
        [tile] if tile is not None else suitable_tiles(claimed),
        Room(model=deployed, allowed_bytes=allowed_bytes),
        channels=network.channels,
        dtype=deployed.contract.image.dtype,
        seed=seed,
    )
    if any(axis.one_pass for axis in (claimed.of_size(pixels.size).y, claimed.of_size(pixels.size).x)):
        claimed = claimed.without_others  # no tiles at this size: they are compared on the extended image
    model = replace(deployed, contract=replace(deployed.contract, geometry=claimed))
    check_channels(model, pixels, network.channels)
    plan = TilePlan.of(claimed, pixels.size, "model", suitable)
    if len(plan) == 1:
        raise no_seam(pixels, suitable, allowed_bytes)
    return Trial(model=model, pixels=pixels, plan=plan)


def no_seam(pixels: Pixels, tile: tuple[int, int], allowed_bytes: int) -> PlanError:
    """Return the error where one tile covers the image, or the part of it for which there is memory."""
    (height, width), (rows, columns) = pixels.size, tile
    if pixels.image_size not in {None, pixels.size}:
        return BudgetError(
            f"one pass over {height} x {width} pixels, the part of the image that {format_bytes(allowed_bytes)} allow, "
            f"is one tile of {rows} x {columns}: there is no seam to compare. Raise --memory, or give a smaller --tile"
        )
    return PlanError(
        f"an image of {height} x {width} pixels is one tile of {rows} x {columns}: "
        "there is no seam to compare. Give a larger image, a smaller --tile, or no image"
    )


def _compared(
    network: Network,
    trial: Trial,
    subject: Bounded,
    normalization: Normalization,
    allowed_bytes: int,
    meter: Meter,
) -> tuple[Comparison, WholePass]:
    meter.stage("whole pass")
    whole = whole_pass(subject, trial.pixels.array, trial.model.contract.geometry, normalization)
    meter.stage("tiles")
    tiled = _tiled(trial, allowed_bytes, meter)
    comparison = Comparison(
        pixels=trial.pixels,
        tile=trial.plan.tile_shape,
        tiles=len(trial.plan),
        output_shape=tiled.shape,
        difference=compare(_like(tiled, whole.cropped), whole.cropped, probability=ends_in_probability(network)),
    )
    return comparison, whole


def check_channels(model: DeployedModel, pixels: Pixels, channels: int) -> None:
    """Raise ChannelError where ``pixels`` have a number of channels other than the network's ``channels``."""
    if pixels.array.shape[2] != channels:
        Session(model).plan(ArraySource(pixels.array), ArraySink())  # raises the runtime's own ChannelError


def _like(tiled: NDArray[Any], whole: NDArray[Any]) -> NDArray[Any]:
    """Convert ``tiled``, as the runtime returns every map as float32."""
    return tiled.astype(whole.dtype) if whole.dtype.kind != "f" else tiled


def noise_dtype(network: Network, normalization: Normalization) -> str:
    """Return the sample type: bytes where the network, or the normalisation, is made for them."""
    integers = network.image.dtype is not None and not network.image.dtype.is_floating_point()
    return "uint8" if integers or normalization != Normalization() else "float32"


def _tiled(trial: Trial, allowed_bytes: int, meter: Meter) -> NDArray[Any]:
    plan, sink = trial.plan, ArraySink()
    tiles_px = len(plan) * plan.tile_shape[0] * plan.tile_shape[1]
    wanted = plan.result_shape[0] * plan.result_shape[1]

    def advance(pixels: int) -> None:
        meter.advance(pixels * tiles_px // wanted)

    with closing(Session(trial.model, memory_bytes=allowed_bytes, lanes=1)) as session:
        session.segment(ArraySource(trial.pixels.array), sink, plan="tile", tile=plan.tile_shape, progress=advance)
    return sink.result
