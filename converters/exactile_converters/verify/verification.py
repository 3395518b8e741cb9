"""The whole proof: probe, tiled against whole, and the sweep."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from numpy.typing import NDArray

from exactile.contract import DeployedModel
from exactile.errors import EngineError, PlanError
from exactile.geometry import Geometry
from exactile.memory import default_budget_bytes, resident_bytes
from exactile.plan.tiles import TilePlan
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource
from exactile.sources.protocol import Source
from exactile_converters.deploy import deploy
from exactile_converters.from_onnx import Network
from exactile_converters.geometry.trace import Traced
from exactile_converters.graphs.io import Normalization
from exactile_converters.inspection import untileable
from exactile_converters.verify.bounded import WHOLE_PASS_FACTOR
from exactile_converters.verify.claim import AxisProbe
from exactile_converters.verify.comparison import Comparison
from exactile_converters.verify.difference import compare
from exactile_converters.verify.pixels import Pixels, chosen_pixels, suitable_tile
from exactile_converters.verify.probe import Progress, Subjects, probe_axis
from exactile_converters.verify.subject import Subject, ends_in_probability, private_copy, scores_of
from exactile_converters.verify.sweep import Sweep, sweep
from exactile_converters.verify.ways import PassesProof
from exactile_converters.verify.whole import WholePass, whole_pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What was claimed and what was found. ``probed_tensor`` is the map at which influences were looked for.

    ``comparison`` is None where the network does not run at sizes that the claim accepts; ``refusal`` is what it said.
    Of a network that takes statistics of the whole image, the claim is that of the network with these statistics
    fixed; ``passes`` is what every way to run it showed, statistics of the image itself.
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
        """Whether the claimed geometry is large enough, by the probe and by tiling, and passes give what one does."""
        tiled = self.comparison is not None and self.comparison.holds
        return tiled and all(probe.holds for probe in self.probes) and (self.passes is None or self.passes.holds)


def verify_local(
    network: Network,
    *,
    geometry: Geometry | None,
    source: Source | None,
    normalization: Normalization,
    tile: tuple[int, int] | None,
    with_sweep: bool,
    seed: int,
    progress: Progress,
    with_tiles: bool = True,
) -> Verification:
    """The proof for a network that takes no statistics of the whole image; arguments are those of ``verify``.

    Without ``with_tiles`` or a sweep, it is probed alone.
    """
    traced = network.trace()
    if traced.geometry is None:
        raise untileable(network)
    claimed = geometry or traced.geometry
    scores = scores_of(network, traced.features).name or ""
    subject = _plain(network, traced)
    compared, error = None, None
    try:
        if with_tiles or with_sweep:
            compared = _compare(
                network,
                subject,
                geometry,
                source=source,
                normalization=normalization,
                tile=tile,
                seed=seed,
                progress=progress,
            )
    except EngineError as refusal:
        error = refusal
    subjects = Subjects.of(network, scores, traced.features[scores])
    y, x = (probe_axis(axis, subjects, claimed, seed=seed, progress=progress) for axis in ("y", "x"))
    if error is not None and y.holds and x.holds:
        raise error  # nothing speaks against the claim: the engine failed for a reason of its own
    swept = None
    if with_sweep and compared is not None:
        probability = ends_in_probability(network)
        found, whole = compared
        swept = sweep(subject, whole, whole.geometry, found.tile, probability=probability, progress=progress)
    return Verification(
        model_name=network.name,
        geometry=claimed,
        seed=seed,
        probed_tensor=scores,
        probes=(y, x),
        comparison=compared[0] if compared is not None else None,
        sweep=swept,
        refusal=str(error) if error is not None else "",
    )


def _plain(network: Network, traced: Traced) -> Subject:
    copy = private_copy(network)
    return Subject(copy, copy.result, traced.features[network.result.name or ""])


def _compare(
    network: Network,
    subject: Subject,
    given: Geometry | None,
    *,
    source: Source | None,
    normalization: Normalization,
    tile: tuple[int, int] | None,
    seed: int,
    progress: Progress,
) -> tuple[Comparison, WholePass]:
    dtype = str(source.dtype) if source is not None else noise_dtype(network, normalization)
    deployed = deploy(private_copy(network), image_dtype=dtype, normalization=normalization, output="raw", strips=False)
    claimed = given or deployed.contract.geometry
    tile = tile or suitable_tile(claimed)
    pixels = chosen_pixels(
        source, claimed, tile, partial(fits_one_pass, deployed), channels=network.channels, dtype=dtype, seed=seed
    )
    if any(axis.one_pass for axis in (claimed.of_size(pixels.size).y, claimed.of_size(pixels.size).x)):
        claimed = claimed.without_others  # no tiles at this size: they are compared on the image as it is extended
    model = replace(deployed, contract=replace(deployed.contract, geometry=claimed))
    check_channels(model, pixels, network.channels)
    plan = TilePlan.of(claimed, pixels.size, "model", tile)
    if len(plan) == 1:
        raise PlanError(
            f"an image of {pixels.size[0]} x {pixels.size[1]} pixels is one tile of {tile[0]} x {tile[1]}: "
            "there is no seam to look at. Give a larger image, a smaller --tile, or no image"
        )
    progress("whole pass", 0, 1)
    whole = whole_pass(subject, pixels.array, claimed, normalization)
    progress("whole pass", 1, 1)
    tiled = _tiled(model, pixels.array, plan, progress)
    comparison = Comparison(
        pixels=pixels,
        tile=plan.tile_shape,
        tiles=len(plan),
        output_shape=tiled.shape,
        difference=compare(_like(tiled, whole.cropped), whole.cropped, probability=ends_in_probability(network)),
    )
    return comparison, whole


def check_channels(model: DeployedModel, pixels: Pixels, channels: int) -> None:
    """Raises ChannelError where ``pixels`` have others than the ``channels`` of the network."""
    if pixels.array.shape[2] != channels:
        Session(model).plan(ArraySource(pixels.array), ArraySink())  # raises the runtime's own ChannelError


def _like(tiled: NDArray[Any], whole: NDArray[Any]) -> NDArray[Any]:
    """The runtime gives every map as float32."""
    return tiled.astype(whole.dtype) if whole.dtype.kind != "f" else tiled


def noise_dtype(network: Network, normalization: Normalization) -> str:
    """Bytes where the network, or the normalisation, is made for them."""
    integers = network.image.dtype is not None and not network.image.dtype.is_floating_point()
    return "uint8" if integers or normalization != Normalization() else "float32"


def fits_one_pass(model: DeployedModel, height: int, width: int) -> bool:
    """Whether plain ONNX Runtime has memory for one pass."""
    memory = model.contract.memory
    need = memory.activation_bytes(height, width) * WHOLE_PASS_FACTOR + memory.weights_bytes * 3
    return resident_bytes() + need <= default_budget_bytes()


def _tiled(model: DeployedModel, array: NDArray[Any], plan: TilePlan, progress: Progress) -> NDArray[Any]:
    sink = ArraySink()
    wanted = plan.result_shape[0] * plan.result_shape[1]
    done = 0

    def advance(pixels: int) -> None:
        nonlocal done
        done += pixels
        progress("tiles", done, wanted)

    Session(model).segment(ArraySource(array), sink, plan="tile", tile=plan.tile_shape, progress=advance)
    return sink.result
