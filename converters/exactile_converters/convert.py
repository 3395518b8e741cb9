"""From a trained network to a bundle."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from exactile.bundle.contract_file import AccuracyPart, ClassPart, ContractFile, TrialPart
from exactile.contract import Activation, DeployedModel, OutputKind
from exactile.errors import ModelError, OptionError
from exactile.passes.fixed import FixedStatistics
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource
from exactile.sources.protocol import Source
from exactile_converters.agreement import Agreement
from exactile_converters.bundle import BundleContent, conventional_metadata, write_bundle
from exactile_converters.calibration import Chosen, Reference, Trial, choose
from exactile_converters.calibration_crops import Crops, crops_of
from exactile_converters.class_colors import hex_color, usual_color
from exactile_converters.cuda_kernels.check import cuda_note
from exactile_converters.declared.choice import normalization_for
from exactile_converters.deploy import deploy, deploy_in_passes
from exactile_converters.entries import Entry, load_entry, load_factory
from exactile_converters.explicit_windows import write_windows
from exactile_converters.from_onnx import Network
from exactile_converters.geometry.trace import Traced
from exactile_converters.graphs.image_in import fitting_image_type
from exactile_converters.graphs.io import MapDtype, Normalization
from exactile_converters.inspection import untileable
from exactile_converters.passes.deploy import obstacles_left, without_statistics
from exactile_converters.passes.fixed import fixed_note, freeze
from exactile_converters.precision import Precision, in_half_precision, refuse_integers
from exactile_converters.proven import proven, refusal
from exactile_converters.quantize import Calibration
from exactile_converters.simplify_checked import simplify_checked
from exactile_converters.tile_shape import padded_tile
from exactile_converters.verify.claim_check import Progress, check_claim
from exactile_converters.written import OwnOutput, check_written

__all__ = ["Converted", "Entry", "Normalization", "convert", "convert_entry", "load_entry", "load_factory"]

if TYPE_CHECKING:
    from torch import nn

SAMPLE_PX = 96
ANY_SIZE = (
    "A bundle is for images of any size. exactile run MODEL.onnx IMAGE runs this network in one pass over the whole "
    "image, where that fits the memory; --trust-probe takes tiles of the halo that runs show, where they show one: not "
    "proven."
)

NO_CODE = "-"
_CODE = re.compile(r"([^:]{1,16}:[^:]{1,16}:.{1,64})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """A written bundle, and how well its graph agrees with the framework (None for ONNX).

    ``untried`` says why tiles and strips could not be compared with one pass.
    """

    path: Path
    file: ContractFile
    agreement: Agreement | None
    untried: str = ""


def convert(
    source: str | Path | nn.Module,
    target: str | Path,
    *,
    image_dtype: str | None = None,
    normalization: Normalization | None = None,
    output: OutputKind | None = None,
    map_dtype: MapDtype | None = None,
    threshold: float | None = None,
    activation: Activation | None = None,
    precision: Precision = "fp32",
    calibration: Calibration | None = None,
    calibration_images: Sequence[Source] = (),
    output_name: str | None = None,
    tile: tuple[int, int] | None = None,
    classes: Sequence[str] | None = None,
    colors: Sequence[str] | None = None,
    codes: Sequence[str] | None = None,
    example_shape: tuple[int, int, int, int] | None = None,
    statistics: FixedStatistics | None = None,
    overwrite: bool = False,
    verify: bool = True,
    trust_probe: bool = False,
) -> Converted:
    """Write a bundle for ``source``: ONNX, TorchScript, an exported program (.pt2), a module, Keras, a SavedModel.

    Also a BioImage.IO package (folder, rdf.yaml or zip), which brings its own normalisation. ``tile`` is the (height,
    width) of the padded tile whose graph has a fixed shape; ``image_dtype`` that of the images to come (default: what
    the network or package says, else uint8); ``output`` defaults to labels, for a package to raw: after its
    post-processing.
    ``map_dtype`` is the type of probabilities (float32, float16, uint8: round(255 p)) and raw maps. ``threshold`` (of
    the probability) and ``activation`` (what the output still needs to be probabilities) are as for ``deploy``.
    ``example_shape`` (N, C, H, W) is the image that a PyTorch module is traced with (default: 256 x 256 pixels and the
    channels of its first convolution). ``precision`` is that inside the network. int8 is calibrated on
    some of ``calibration_images``, and labels compared on others; of several ways to find ranges (or ``calibration``
    alone) and of layers that stay in FP32, the best is taken. ``statistics`` of the whole image, measured with this
    network before, are written into it, and a note of it into the bundle. Unless ``verify`` is False, the network is
    run at small sizes in tiles, strips and one pass; strips that differ are left out. With ``trust_probe``, a network
    that no rule proves local is taken with the halo that runs of it show, which is not proven; its tiles are compared
    with one pass, ``verify`` or not.

    Raises ModelError, NotTileableError that lists the obstacles, VerificationError where tiles differ from one pass, or
    runs show nothing to trust, OptionError, SinkError.
    """
    channels, size = (example_shape[1], example_shape[2:]) if example_shape is not None else (None, None)
    entry = load_entry(source, output_name=output_name, input_channels=channels, example_size=size)
    return convert_entry(
        entry,
        target,
        image_dtype=image_dtype,
        normalization=normalization,
        output=output,
        map_dtype=map_dtype,
        threshold=threshold,
        activation=activation,
        precision=precision,
        calibration=calibration,
        calibration_images=calibration_images,
        tile=tile,
        classes=classes,
        colors=colors,
        codes=codes,
        statistics=statistics,
        overwrite=overwrite,
        verify=verify,
        trust_probe=trust_probe,
    )


def convert_entry(
    entry: Entry,
    target: str | Path,
    *,
    image_dtype: str | None = None,
    normalization: Normalization | None = None,
    output: OutputKind | None = None,
    map_dtype: MapDtype | None = None,
    threshold: float | None = None,
    activation: Activation | None = None,
    precision: Precision = "fp32",
    calibration: Calibration | None = None,
    calibration_images: Sequence[Source] = (),
    tile: tuple[int, int] | None = None,
    classes: Sequence[str] | None = None,
    colors: Sequence[str] | None = None,
    codes: Sequence[str] | None = None,
    statistics: FixedStatistics | None = None,
    overwrite: bool = False,
    verify: bool = True,
    trust_probe: bool = False,
    progress: Progress = lambda _done, _steps: None,
    calibrating: Progress = lambda _done, _steps: None,
) -> Converted:
    """The same for a network that was read before.

    ``progress`` gets steps done, and in all, of running it to check, ``calibrating`` those of comparing forms of int8.
    """
    network, package = entry.network, entry.package
    if package is not None and normalization not in (None, Normalization()):
        raise OptionError(
            f"{network.name}: the package says how samples are normalised; leave --scale and the like out"
        )
    image_dtype = image_dtype or _usual_dtype(entry)
    asked = normalization if package is None else package.normalization
    normalization = normalization_for(network, asked, image_dtype)
    output = output or ("raw" if package is not None else None)
    if classes is None and package is not None and package.classes:
        classes = package.classes
    fixed: tuple[str, ...] = ()
    if statistics is not None:
        proof = check_claim(network, strips=False, progress=progress) if verify else None
        network = freeze(network, statistics, image_dtype=image_dtype, normalization=normalization)
        if proof is not None and proof.tiles:
            raise refusal(network.name, proof)
        fixed = (fixed_note(statistics),)
    wish: dict[str, Any] = {
        "image_dtype": image_dtype,
        "normalization": asked,
        "output": output,
        "map_dtype": map_dtype,
        "threshold": threshold,
        "activation": activation,
    }
    if trust_probe and not _is_proven(network):
        made = _by_probe(network, precision, tile, wish)
    else:
        trial = partial(
            _of_precision,
            precision=precision,
            images=calibration_images,
            normalization=normalization,
            calibration=calibration,
            progress=calibrating,
        )
        made = _by_rules(network, precision, tile, wish, trial, progress if verify else None)
    model = made.model
    if classes is None and model.contract.result.labels:
        classes = [one.name for one in model.contract.result.labels]
        colors = colors or ["#{:02x}{:02x}{:02x}".format(*one.rgb) for one in model.contract.result.labels]
    named = _classes(model, classes, colors, codes)
    image = _sample_image(model)
    result = run_whole(model, image)
    noted: tuple[str, ...] = ()
    if normalization.statistics is None:
        noted = check_written(made.own.run(image, normalization), result, model.contract.result, network.name)
    content = BundleContent(
        model=model,
        source=entry.source,
        normalization=normalization,
        classes=named,
        tile=made.tile,
        sample_image=image,
        sample_result=result,
        metadata=conventional_metadata(model.contract, named, normalization),
        notes=(
            *(package.notes if package is not None else ()),
            *model.contract.notes,
            *fixed,
            *noted,
            *filter(None, [cuda_note(model)]),
        ),
        precision=precision,
        accuracy=made.accuracy,
    )
    file = write_bundle(content, target, overwrite=overwrite)
    return Converted(path=Path(target), file=file, agreement=entry.agreement, untried=made.untried)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """A deployed model with its padded ``tile``; ``own`` gives the network's own output."""

    model: DeployedModel
    tile: tuple[int, int]
    own: OwnOutput
    accuracy: AccuracyPart | None = None
    untried: str = ""


def _is_proven(network: Network) -> bool:
    """Whether rules prove that it runs exactly in tiles, be it after passes for statistics of the whole image."""
    return network.trace().geometry is not None or not obstacles_left(network)


def _by_probe(network: Network, precision: Precision, tile: tuple[int, int] | None, wish: Mapping[str, Any]) -> _Made:
    """With the halo that runs show. Raises VerificationError, and OptionError where bits are fewer."""
    from exactile_converters.probed.deploy import deploy_probed, result_axes, trusted

    if precision != "fp32":
        raise OptionError(f"{network.name}: what --trust-probe finds is found at fp32 alone; leave --precision out")
    found = trusted(network)
    own = OwnOutput.of(network, result_axes(network))
    shape = padded_tile(found.steady.geometry, tile)
    return _Made(model=deploy_probed(network, found=found, **wish), tile=shape, own=own)


def _by_rules(
    network: Network,
    precision: Precision,
    tile: tuple[int, int] | None,
    wish: Mapping[str, Any],
    of_precision: Callable[[Network], tuple[Network, AccuracyPart | None]],
    progress: Progress | None,
) -> _Made:
    """With the geometry that its graph tells, checked by runs unless ``progress`` is None.

    Raises NotTileableError, VerificationError.
    """
    traced, in_passes = _traced(network, precision)
    assert traced.geometry is not None
    shape = padded_tile(traced.geometry, tile)
    if not in_passes:
        write_windows(traced)
        simplify_checked(network, traced)
    full, declared = network, network.declared
    network, accuracy = of_precision(network)
    if network is not full and network.trace().geometry != traced.geometry:
        raise ModelError(f"{network.name}: {precision} changed the geometry; please report this model")
    network = replace(network, declared=declared)  # another form of it is fed the same
    own = OwnOutput.of(network, traced.features[full.result.name or ""].labels)
    checked = check_claim(network, progress=progress) if progress is not None else None
    make = partial(deploy_in_passes, one_pass=True) if in_passes else deploy
    model = proven(
        lambda strips: make(network, strips=strips, **wish),
        checked,
        name=network.name,
        strips=True,
        skipped="--no-verify",
    )
    untried = checked.untried if checked is not None else ""
    return _Made(model=model, tile=shape, own=own, accuracy=accuracy, untried=untried)


def _usual_dtype(entry: Entry) -> str:
    """The type of samples to come, where nobody says it: what package, file or network take."""
    if entry.package is not None:
        return entry.package.image_dtype
    declared = entry.network.declared
    return (declared.image_dtype if declared is not None else None) or fitting_image_type(entry.network)


def _traced(network: Network, precision: Precision) -> tuple[Traced, bool]:
    """The trace; or, and True, that of the network without the statistics that it takes of the whole image.

    Raises NotTileableError, and OptionError for statistics where bits are fewer.
    """
    traced = network.trace()
    if traced.geometry is not None:
        return traced, False
    traced = without_statistics(network.copy())[0].trace()
    if traced.geometry is None:
        raise untileable(network, way_out=ANY_SIZE)
    if precision != "fp32":
        raise OptionError(
            f"{network.name} takes statistics of the whole image, which are found at fp32 alone; leave --precision out"
        )
    return traced, True


def _of_precision(
    network: Network,
    *,
    precision: Precision,
    images: Sequence[Source],
    normalization: Normalization,
    calibration: Calibration | None,
    progress: Progress,
) -> tuple[Network, AccuracyPart | None]:
    """``network`` itself in FP32, else another one; and what fewer bits do to labels, where there are images."""
    refuse_integers(network, precision)
    if precision == "fp32":
        return network, None
    crops = crops_of(images, network, normalization) if images or precision == "int8" else None
    if precision == "int8" and crops is not None:
        chosen = choose(network, normalization, crops, calibration=calibration, progress=progress)
        return chosen.network, _accuracy_of(chosen, crops)
    half = in_half_precision(network)
    if crops is None:
        return half, None
    found, _, _ = Reference(network, normalization, crops.held_out).compare(half)
    if found is None:
        return half, None
    part = AccuracyPart(calibration=None, pixels=found.pixels, different_labels=found.different_labels, iou=found.iou)
    return half, part


def _accuracy_of(chosen: Chosen, crops: Crops) -> AccuracyPart:
    best = chosen.trial
    found = best.accuracy
    return AccuracyPart(
        calibration=best.method.calibration,
        percentile=best.method.percentile,
        float_layers=best.float_layers,
        pixels=found.pixels if found is not None else 0,
        different_labels=found.different_labels if found is not None else 0,
        iou=found.iou if found is not None else (),
        error=best.error if found is None else None,
        time=best.time,
        held_out=crops.apart,
        tried=tuple(map(_trial_part, chosen.tried)),
    )


def _trial_part(trial: Trial) -> TrialPart:
    return TrialPart(
        calibration=trial.method.calibration,
        percentile=trial.method.percentile,
        float_layers=trial.float_layers,
        share=trial.error if trial.accuracy is not None else None,
        error=trial.error if trial.accuracy is None else None,
        iou=trial.accuracy.iou if trial.accuracy is not None else (),
        time=trial.time,
    )


def run_whole(model: DeployedModel, image: NDArray[Any]) -> NDArray[Any]:
    """One pass over ``image`` (H, W, C)."""
    sink = ArraySink()
    Session(model).segment(ArraySource(image), sink, plan="whole")
    return sink.result


def _sample_image(model: DeployedModel) -> NDArray[Any]:
    """Smooth noise, the same each time, over the range that samples of the type usually have."""
    contract = model.contract
    shape = (contract.geometry.y.accepted_size(SAMPLE_PX), contract.geometry.x.accepted_size(SAMPLE_PX))
    generator = np.random.default_rng(0)
    coarse = generator.random((-(-shape[0] // 8), -(-shape[1] // 8), contract.image.channels))
    smooth = np.kron(coarse, np.ones((8, 8, 1)))[: shape[0], : shape[1]]
    samples = np.clip(smooth + 0.1 * generator.standard_normal(smooth.shape), 0, 1)
    dtype = np.dtype(contract.image.dtype)
    return np.ascontiguousarray((samples * (np.iinfo(dtype).max if dtype.kind == "u" else 1)).astype(dtype))


def _classes(
    model: DeployedModel,
    names: Sequence[str] | None,
    colors: Sequence[str] | None,
    codes: Sequence[str] | None,
) -> list[ClassPart]:
    count = model.contract.result.classes
    if names is None:
        names = [f"class {index}" for index in range(count)]
    if count and len(names) != count:
        raise OptionError(f"{len(names)} class names are given and the network tells {count} classes apart")
    if colors is None:
        colors = [usual_color(index) for index in range(len(names))]
    if len(colors) != len(names):
        raise OptionError(f"{len(colors)} colours for {len(names)} classes")
    codes = [""] * len(names) if codes is None else ["" if code == NO_CODE else code for code in codes]
    if len(codes) != len(names):
        raise OptionError(f"{len(codes)} codes for {len(names)} classes")
    if wrong := [code for code in codes if not _CODE.fullmatch(code)]:
        raise OptionError(
            "a code is SCHEME:VALUE:MEANING, such as SCT:108369006:Neoplasm, with at most 16, 16 and 64 characters, "
            f"or {NO_CODE} for none; got {wrong[0]!r}"
        )
    return [
        ClassPart(name=name, color=hex_color(color), code=code)
        for name, color, code in zip(names, colors, codes, strict=True)
    ]
