"""``exactile run``: segment one image."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from exactile.cli.damage import warn_of_damage
from exactile.cli.failures import reported
from exactile.cli.model_choice import ModelChoice
from exactile.cli.normalization import NormalizationOptions
from exactile.cli.options import (
    AxesOption,
    BundleOrModelArgument,
    ChannelsOption,
    CorruptChoice,
    CorruptValueOption,
    JointOption,
    LevelOption,
    MeanOption,
    NoProgressOption,
    NormalizeOption,
    OnCorruptOption,
    OutputChoice,
    OutputNameOption,
    PercentilesOption,
    ScaleOption,
    StdOption,
)
from exactile.cli.progress import Bar
from exactile.cli.summary import print_summary
from exactile.cli.values import parse_bytes, parse_channels, parse_tile

EXAMPLES = """
**Examples**

`exactile run unet.onnx slide.tif -o labels.tif --scale 255`

`exactile run unet.onnx slide.tif -o labels.ome.tif --memory 2GiB --mean 0.7,0.5,0.6 --std 0.2 --scale 255`

`exactile run unet.bundle slide.tif -o labels.tif`

`exactile run unet.onnx volume.npy -o scores.npy --axes CYX --output raw --tile 512x768`

`exactile run unet.onnx scan.tif -o labels.tif --plan strip --tile 256x8192`

`exactile run unet.onnx slide.svs -o labels.tif --level 1 --channels 0,1,2 --json > summary.json`
"""


class PlanChoice(StrEnum):
    auto = "auto"
    whole = "whole"
    tile = "tile"
    strip_ = "strip"  # a str has a method of that name


class BorderChoice(StrEnum):
    model = "model"
    reflect = "reflect"
    edge = "edge"
    constant = "constant"


def run(
    model: BundleOrModelArgument,
    image: Annotated[Path, typer.Argument(help="The image: a TIFF or .npy file.", show_default=False)],
    target: Annotated[
        Path, typer.Option("-o", "--to", help="Where the result goes: .tif, .ome.tif or .npy.", show_default=False)
    ],
    output: Annotated[
        OutputChoice | None,
        typer.Option(help="labels; probabilities (C, H, W); or raw, the network's own output. [default: labels]"),
    ] = None,
    plan: Annotated[
        PlanChoice, typer.Option(help="One whole pass, tiles, strips, or whichever is predicted to be the fastest.")
    ] = (PlanChoice.auto),
    tile: Annotated[
        str | None,
        typer.Option(
            metavar="H[xW]",
            help="Force the tile: the padded input shape, height x width; of strips: rows x band width.",
        ),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Resident memory of the process, e.g. 2GiB. [default: half of what is free]"),
    ] = None,
    border: Annotated[
        BorderChoice, typer.Option(help="What lies outside the image; model: nothing, the network pads as it does.")
    ] = BorderChoice.model,
    scale: ScaleOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    normalize: NormalizeOption = None,
    percentiles: PercentilesOption = None,
    joint_channels: JointOption = False,
    channels: ChannelsOption = None,
    axes: AxesOption = None,
    level: LevelOption = 0,
    on_corrupt: OnCorruptOption = CorruptChoice.fail,
    corrupt_value: CorruptValueOption = None,
    output_name: OutputNameOption = None,
    compression: Annotated[
        str | None, typer.Option(help="Of a TIFF result: zlib, zstd, lzw or none. [default: zlib]")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the engine. [default: all cores]")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing output, once complete.")] = False,
    no_progress: NoProgressOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as one JSON object on stdout.")] = False,
) -> None:
    """Segment an image of any size exactly: the result equals one pass over the whole image.

    The output appears under its name only when it is complete.
    """
    with reported():
        from exactile.session import Session
        from exactile.sinks.open import check_target, open_sink
        from exactile.sources.open import open_source

        memory_bytes, tile_shape = parse_bytes(memory), parse_tile(tile)
        sink = open_sink(target, overwrite=overwrite, compression=compression)
        check_target(target, overwrite=overwrite)
        chosen = ModelChoice(
            path=model,
            normalization=NormalizationOptions(
                normalize=normalize,
                percentiles=percentiles,
                joint_channels=joint_channels,
                scale=scale,
                mean=mean,
                std=std,
            ),
            output=output.value if output is not None else None,
            output_name=output_name,
            strips=plan.value in ("auto", "strip"),
        )
        deploy = chosen.load()
        source = open_source(
            image,
            axes=axes,
            channels=parse_channels(channels),
            level=level,
            on_corrupt=on_corrupt.value,
            corrupt_value=corrupt_value,
        )
        try:
            deployed = deploy(str(source.dtype))
            session = Session(deployed, memory_bytes=memory_bytes, threads=threads)
            with Bar(image.name, enabled=not no_progress) as bar:
                summary = session.segment(
                    source,
                    sink,
                    plan=plan.value,
                    tile=tile_shape,
                    border=border.value,
                    progress=bar.advance,
                    planned=bar.start,
                    measuring=bar.measure,
                )
        finally:
            source.close()
        print_summary(summary, model=model, image=image, target=target, as_json=as_json)
        warn_of_damage(summary.damage, image)
