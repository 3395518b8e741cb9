"""``exactile convert``: convert a trained network to a bundle, and build engines for a bundle."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer

from exactile.cli.bundle_text import print_converted, print_engines
from exactile.cli.conversion import CalibrationChoice, Conversion, DtypeChoice, MapDtypeChoice, PrecisionChoice
from exactile.cli.engine_options import (
    BatchOption,
    CapabilityOption,
    EngineOption,
    EngineOptions,
    EnginePrecisionOption,
    LevelOption,
    StripRowsOption,
    StripWidthOption,
    TimingCacheOption,
    WorkspaceOption,
)
from exactile.cli.engine_progress import BuildBar
from exactile.cli.failures import reported
from exactile.cli.normalization import NormalizationOptions
from exactile.cli.options import (
    ActivationOption,
    JointOption,
    MeanOption,
    NoProgressOption,
    NormalizeOption,
    NoVerifyOption,
    OutputChoice,
    OutputNameOption,
    PercentilesOption,
    ScaleOption,
    StdOption,
    ThresholdOption,
    TrustProbeOption,
)
from exactile.cli.protection import protect_files
from exactile.errors import ExactileError
from exactile.request.converter import load_bundle_maker, load_engine_builder
from exactile.request.meaning import tell_doubt, tell_unproven, tell_unverified

EXAMPLES = """
**Examples**

`exactile convert unet.onnx -o unet.bundle --scale 255`

`exactile convert traced.pt -o unet.bundle --scale 255 --mean 0.7,0.5,0.6 --std 0.2 --classes background,nucleus`

`exactile convert --torch mypackage.models:build_unet --weights best.pth -o unet.bundle --tile 1024x2048`

`exactile convert program.pt2 -o unet.bundle --dtype uint16 --scale 65535 --output probabilities`

`exactile convert stardist.onnx -o stardist.bundle --dtype uint16 --normalize percentile --output raw`

`exactile convert unet.onnx -o unet.bundle --scale 255 --precision int8 --calibrate slide1.tif --calibrate slide2.tif`

`exactile convert norms.onnx -o norms.bundle --scale 255 --freeze-statistics statistics.json`

`exactile convert affable-shark.zip -o shark.bundle`

`exactile convert nuclei.czann -o nuclei.bundle --dtype uint16`

`exactile convert unet.onnx -o unet.bundle --scale 255 --engine tensorrt-rtx --compute-capability 8.6,8.9`

`exactile convert unet.bundle --engine tensorrt --engine-precision fp16 --strip-rows 128 --strip-width 8192`

`exactile convert unet.bundle --engine tensorrt-rtx --tile 512 --batch 8 --workspace 4GiB`

`exactile info unet.bundle --test`, then `exactile run unet.bundle slide.tif -o labels.tif`
"""


def convert(
    source: Annotated[
        Path | None,
        typer.Argument(
            help="ONNX, PyTorch (.pt, .pt2), Keras (.keras), a SavedModel or BioImage.IO folder or zip, .czann, "
            ".czseg, a pixel classifier of QuPath; with --engine also a bundle.",
            show_default=False,
        ),
    ] = None,
    target: Annotated[Path | None, typer.Option("-o", "--to", help="The bundle: a folder.", show_default=False)] = None,
    torch: Annotated[
        str | None,
        typer.Option(metavar="MODULE:FACTORY", help="Instead of SOURCE: the function that returns the PyTorch module."),
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="A state dict for --torch.", show_default=False)] = None,
    input_channels: Annotated[
        int | None, typer.Option(min=1, help="Channels of the image. [default: those of the first convolution]")
    ] = None,
    dtype: Annotated[
        DtypeChoice | None,
        typer.Option(
            help="Sample type of the images to process. [default: uint8, or as the model or package declares]"
        ),
    ] = None,
    scale: ScaleOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    normalize: NormalizeOption = None,
    percentiles: PercentilesOption = None,
    joint_channels: JointOption = False,
    output: Annotated[
        OutputChoice | None,
        typer.Option(
            help="labels; multilabel, 0 or 1 for each channel; probabilities (C, H, W); or raw, the network's output. "
            "[default: labels; raw for a package]"
        ),
    ] = None,
    map_dtype: Annotated[
        MapDtypeChoice | None,
        typer.Option(help="Type of probabilities and raw maps; uint8 is round(255 p). [default: float32]"),
    ] = None,
    threshold: ThresholdOption = None,
    activation: ActivationOption = None,
    precision: Annotated[
        PrecisionChoice | None,
        typer.Option(help="Precision inside the network. int8 needs --calibrate; seams stay exact. [default: fp32]"),
    ] = None,
    calibrate: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="IMAGE",
            help="An image to calibrate int8 on, or to compare labels on: one in three is held out for that. Repeat it "
            "for more images; ten or more serve best.",
        ),
    ] = None,
    calibration_page: Annotated[
        int | None, typer.Option("--page", min=0, help="For --calibrate: one page of a TIFF file by its number.")
    ] = None,
    calibration: Annotated[
        CalibrationChoice | None,
        typer.Option(help="Method to choose int8 ranges. [default: best of all that are compared]"),
    ] = None,
    output_name: OutputNameOption = None,
    tile: Annotated[
        str | None,
        typer.Option(
            metavar="H[xW]", help="Padded tile shape of the fixed graph and of engines. [default: 1024 or more]"
        ),
    ] = None,
    classes: Annotated[str | None, typer.Option(metavar="NAMES", help="Class names, separated by commas.")] = None,
    colors: Annotated[str | None, typer.Option(metavar="COLORS", help="Class colours: #rrggbb,#rrggbb,...")] = None,
    class_codes: Annotated[
        str | None,
        typer.Option(
            metavar="CODES",
            help="Codes of the classes in DICOM Segmentations: -,SCT:108369006:Neoplasm,... (scheme, value, meaning).",
            show_default=False,
        ),
    ] = None,
    freeze_statistics: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.json",
            help="Of a network that takes statistics of the whole image: write these, which exactile measure found, "
            "into it. The bundle is then one of a network that takes none.",
            show_default=False,
        ),
    ] = None,
    engine: EngineOption = None,
    engine_precision: EnginePrecisionOption = None,
    compute_capability: CapabilityOption = None,
    batch: BatchOption = None,
    strip_rows: StripRowsOption = None,
    strip_width: StripWidthOption = None,
    workspace: WorkspaceOption = None,
    timing_cache: TimingCacheOption = None,
    optimization_level: LevelOption = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing bundle or, for a bundle, engines that fit.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the contract as JSON on stdout.")] = False,
    no_verify: NoVerifyOption = False,
    trust_probe: TrustProbeOption = False,
    no_progress: NoProgressOption = False,
) -> None:
    """Convert a trained network to a bundle, which runs without PyTorch and without onnx.

    Before anything is written, the network's ONNX form is compared with the framework's own result, and its tiles and
    strips with one pass. Engines are built beside a new bundle or, without -o, beside one that is there.
    """
    conversion = Conversion(
        source=source,
        target=target,
        torch=torch,
        weights=weights,
        input_channels=input_channels,
        dtype=dtype,
        normalization=NormalizationOptions(
            normalize=normalize,
            percentiles=percentiles,
            joint_channels=joint_channels,
            scale=scale,
            mean=mean,
            std=std,
        ),
        output=output,
        map_dtype=map_dtype,
        threshold=threshold,
        activation=activation,
        precision=precision,
        calibrate=calibrate,
        calibration_page=calibration_page,
        calibration=calibration,
        output_name=output_name,
        tile=tile,
        classes=classes,
        colors=colors,
        codes=class_codes,
        freeze_statistics=freeze_statistics,
        overwrite=overwrite,
        verify=not no_verify,
        trust_probe=trust_probe,
        progress=not no_progress,
    )
    engines = EngineOptions(
        backend=engine,
        precision=engine_precision,
        compute_capability=compute_capability,
        batch=batch,
        strip_rows=strip_rows,
        strip_width=strip_width,
        workspace=workspace,
        timing_cache=timing_cache,
        optimization_level=optimization_level,
    )
    with reported():
        engines.check()
        folder = conversion.bundle(engines=engine is not None)
        if folder is None:
            _convert(conversion, engines, as_json=as_json, progress=not no_progress)
        else:
            builder = load_engine_builder()
            settings = engines.build(builder, tile=conversion.tile_shape, rebuild=overwrite)
            print_engines(folder, _build(builder, folder, settings, progress=not no_progress), as_json=as_json)


def _convert(conversion: Conversion, engines: EngineOptions, *, as_json: bool, progress: bool) -> None:
    """Convert, and build engines if requested; whether they can be built here is checked first."""
    folder = conversion.check()
    given = (conversion.source, conversion.weights, conversion.freeze_statistics)
    reads = [path for path in given if path is not None]
    writes = [(folder, "-o"), *([(engines.timing_cache, "--timing-cache")] if engines.timing_cache else [])]
    protect_files(reads, conversion.calibrate or (), files=writes)
    maker = load_bundle_maker()
    builder = load_engine_builder() if engines.backend is not None else None
    settings = engines.build(builder, tile=None, rebuild=False) if builder is not None else None
    if builder is not None:
        builder.check_settings(settings)
    converted = conversion.run(maker)
    tell_doubt(converted.file.result.doubt)
    if converted.untried:
        tell_unverified(folder.name, converted.untried)
    tell_unproven(folder.name, converted.file.verification)
    outcomes: tuple[Any, ...] = ()
    if builder is not None:
        try:
            outcomes = _build(builder, folder, settings, progress=progress)
        except ExactileError as error:
            raise type(error)(f"{error} (the bundle {folder} was written, and can be used)") from error
    print_converted(converted, outcomes, as_json=as_json)


def _build(builder: ModuleType, folder: Path, settings: Any, *, progress: bool) -> tuple[Any, ...]:
    with BuildBar(enabled=progress) as bar:
        outcomes: tuple[Any, ...] = builder.build_engines(folder, settings, watcher=bar)
    return outcomes
