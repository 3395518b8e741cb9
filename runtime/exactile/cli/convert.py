"""``exactile convert``: a trained network becomes a bundle."""

from __future__ import annotations

from contextlib import ExitStack, closing
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from exactile.cli.bundle_text import print_converted
from exactile.cli.converter import load_bundle_maker
from exactile.cli.failures import reported
from exactile.cli.normalization import NormalizationOptions
from exactile.cli.options import (
    JointOption,
    MeanOption,
    NormalizeOption,
    OutputChoice,
    OutputNameOption,
    PercentilesOption,
    ScaleOption,
    StdOption,
)
from exactile.cli.values import parse_names, parse_tile
from exactile.errors import OptionError

EXAMPLES = """
**Examples**

`exactile convert unet.onnx -o unet.bundle --scale 255`

`exactile convert traced.pt -o unet.bundle --scale 255 --mean 0.7,0.5,0.6 --std 0.2 --classes background,nucleus`

`exactile convert --torch mypackage.models:build_unet --weights best.pth -o unet.bundle --tile 1024x2048`

`exactile convert program.pt2 -o unet.bundle --dtype uint16 --scale 65535 --output probabilities`

`exactile convert stardist.onnx -o stardist.bundle --dtype uint16 --normalize percentile --output raw`

`exactile convert unet.onnx -o unet.bundle --scale 255 --precision int8 --calibrate slide1.tif --calibrate slide2.tif`

`exactile convert affable-shark.zip -o shark.bundle`

`exactile info unet.bundle --test`, then `exactile run unet.bundle slide.tif -o labels.tif`
"""


class DtypeChoice(StrEnum):
    uint8 = "uint8"
    uint16 = "uint16"
    float32 = "float32"


class MapDtypeChoice(StrEnum):
    float32 = "float32"
    float16 = "float16"
    uint8 = "uint8"


class PrecisionChoice(StrEnum):
    fp32 = "fp32"
    fp16 = "fp16"
    int8 = "int8"


class CalibrationChoice(StrEnum):
    percentile = "percentile"
    entropy = "entropy"
    minmax = "minmax"


def convert(
    target: Annotated[Path, typer.Option("-o", "--to", help="The bundle: a folder.", show_default=False)],
    source: Annotated[
        Path | None,
        typer.Argument(
            help="ONNX, PyTorch (.pt, .pt2), Keras (.keras), a SavedModel or BioImage.IO folder or zip.",
            show_default=False,
        ),
    ] = None,
    torch: Annotated[
        str | None,
        typer.Option(metavar="MODULE:FACTORY", help="In place of SOURCE: what builds the PyTorch module when called."),
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="A state dict for --torch.", show_default=False)] = None,
    input_channels: Annotated[
        int | None, typer.Option(min=1, help="Channels of the image. [default: of the first convolution]")
    ] = None,
    dtype: Annotated[
        DtypeChoice | None, typer.Option(help="Samples of the images to come. [default: uint8, or what a package says]")
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
            help="labels; probabilities (C, H, W); or raw, the network's output. [default: labels; raw for a package]"
        ),
    ] = None,
    map_dtype: Annotated[
        MapDtypeChoice | None,
        typer.Option(help="Of probabilities and raw maps; uint8 is round(255 p). [default: float32]"),
    ] = None,
    precision: Annotated[
        PrecisionChoice, typer.Option(help="Inside the network. int8 needs --calibrate; seams stay exact.")
    ] = PrecisionChoice.fp32,
    calibrate: Annotated[
        list[Path] | None,
        typer.Option(metavar="IMAGE", help="An image to calibrate int8 on and to compare labels on; may be repeated."),
    ] = None,
    calibration: Annotated[
        CalibrationChoice, typer.Option(help="How int8 ranges are chosen.")
    ] = CalibrationChoice.percentile,
    output_name: OutputNameOption = None,
    tile: Annotated[
        str | None,
        typer.Option(metavar="H[xW]", help="Padded tile whose graph has a fixed shape. [default: 1024 or more]"),
    ] = None,
    classes: Annotated[str | None, typer.Option(metavar="NAMES", help="Class names, separated by commas.")] = None,
    colors: Annotated[str | None, typer.Option(metavar="COLORS", help="Class colours: #rrggbb,#rrggbb,...")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing bundle.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the contract as JSON on stdout.")] = False,
) -> None:
    """Convert a trained network to a bundle, which runs without PyTorch and without onnx.

    The network's ONNX form is compared with the framework's own result before anything is written.
    """
    with reported():
        if (source is None) == (torch is None):
            raise OptionError("give either a file to convert or --torch MODULE:FACTORY")
        if weights is not None and torch is None:
            raise OptionError("--weights belongs to --torch MODULE:FACTORY, which builds the network they are for")
        maker = load_bundle_maker()
        tile_shape = parse_tile(tile)
        normalization = NormalizationOptions(
            normalize=normalize,
            percentiles=percentiles,
            joint_channels=joint_channels,
            scale=scale,
            mean=mean,
            std=std,
        ).build(maker)
        if torch is not None:
            entry = maker.load_factory(torch, weights, output_name=output_name, input_channels=input_channels)
        else:
            entry = maker.load_entry(source, output_name=output_name, input_channels=input_channels)
        from exactile.sources.open import open_source

        with ExitStack() as opened:
            images = [opened.enter_context(closing(open_source(path))) for path in calibrate or ()]
            converted = maker.convert_entry(
                entry,
                target,
                image_dtype=dtype.value if dtype is not None else None,
                normalization=normalization,
                output=output.value if output is not None else None,
                map_dtype=map_dtype.value if map_dtype is not None else None,
                precision=precision.value,
                calibration=calibration.value,
                calibration_images=images,
                tile=tile_shape,
                classes=parse_names(classes),
                colors=parse_names(colors),
                overwrite=overwrite,
            )
        print_converted(converted, as_json=as_json)
