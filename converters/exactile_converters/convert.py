"""Convert a trained network to a bundle."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from exactile.bundle.contract_file import ContractFile
from exactile.bundle.network_parts import ClassPart
from exactile.contract import Activation, DeployedModel, OutputKind
from exactile.errors import OptionError
from exactile.passes.fixed import FixedStatistics
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource
from exactile.sources.protocol import Source
from exactile_converters.bundles.bundle import BundleContent, conventional_metadata, write_bundle
from exactile_converters.bundles.made import by_probe, by_rules, is_proven
from exactile_converters.bundles.proven import refusal
from exactile_converters.bundles.written import check_written
from exactile_converters.cuda_kernels.check import cuda_note
from exactile_converters.declared.choice import normalization_for
from exactile_converters.declared.class_colors import hex_color, usual_color
from exactile_converters.graphs.image_in import fitting_image_type
from exactile_converters.graphs.io import MapDtype, Normalization
from exactile_converters.networks.agreement import Agreement
from exactile_converters.passes.fixed import fixed_note, freeze
from exactile_converters.readers.entries import Entry, load_entry, load_factory
from exactile_converters.reduced_precision.fewer_bits import of_precision
from exactile_converters.reduced_precision.precision import Precision
from exactile_converters.reduced_precision.quantize import Calibration
from exactile_converters.verify.claim_check import Progress, check_claim

__all__ = ["Converted", "Entry", "Normalization", "convert", "convert_entry", "load_entry", "load_factory"]

if TYPE_CHECKING:
    from torch import nn

SAMPLE_PX = 96
NO_CODE = "-"
_CODE = re.compile(r"([^:]{1,16}:[^:]{1,16}:.{1,64})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """A written bundle, and the agreement of its graph with the framework (None for ONNX).

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

    ``source`` may also be a BioImage.IO package (folder, rdf.yaml or zip), which brings its own normalisation. ``tile``
    is the (height, width) of the padded tile whose graph has a fixed shape; ``image_dtype`` the sample type of the
    images (default: what the network or package declares, else uint8). ``output`` defaults to labels, for a package to
    raw, after its post-processing. ``map_dtype`` is the type of probabilities (float32, float16, uint8: round(255 p))
    and raw maps. ``threshold`` (of the probability) and ``activation`` (what turns the output into probabilities) are
    as for ``deploy``. ``example_shape`` (N, C, H, W) is the image that a PyTorch module is traced with (default: 256 x
    256 pixels and the channels of its first convolution).

    ``precision`` is that inside the network. int8 is calibrated on some of ``calibration_images``, and labels are
    compared on others; the best of several ways to find ranges (or ``calibration`` alone) and of layers that stay in
    FP32 is chosen. ``statistics`` of the whole image, measured earlier with this network, become constants of it, and
    the bundle notes this. Unless ``verify`` is False, the network is run at small sizes in tiles, strips and one pass;
    strips that differ are omitted. With ``trust_probe``, a network that no rule proves local is deployed with the halo
    that runs of it show, which is not proven; its tiles are compared with one pass even if ``verify`` is False.

    Raises ModelError, NotTileableError that lists the obstacles, VerificationError where tiles differ from one pass or
    runs show no halo to trust, OptionError, SinkError.
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
    """Do the same as ``convert`` for a network that was already loaded.

    ``progress`` gets steps done and the total of the verification, ``calibrating`` those of comparing forms of int8.
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
    if trust_probe and not is_proven(network):
        made = by_probe(network, precision, tile, wish)
    else:
        trial = partial(
            of_precision,
            precision=precision,
            images=calibration_images,
            normalization=normalization,
            calibration=calibration,
            progress=calibrating,
        )
        made = by_rules(network, precision, tile, wish, trial, progress if verify else None)
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


def _usual_dtype(entry: Entry) -> str:
    """Return the default sample type of the images: what the package, the file or the network declares."""
    if entry.package is not None:
        return entry.package.image_dtype
    declared = entry.network.declared
    return (declared.image_dtype if declared is not None else None) or fitting_image_type(entry.network)


def run_whole(model: DeployedModel, image: NDArray[Any]) -> NDArray[Any]:
    """Run one pass over ``image`` (H, W, C)."""
    sink = ArraySink()
    Session(model).segment(ArraySource(image), sink, plan="whole")
    return sink.result


def _sample_image(model: DeployedModel) -> NDArray[Any]:
    """Return smooth noise, the same each time, over the usual range of the sample type."""
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
        raise OptionError(f"{len(names)} class names are given, but the network has {count} classes")
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
