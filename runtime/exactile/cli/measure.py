"""``exactile measure``: find fixed statistics of many images, for networks that take statistics of the whole image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from exactile.cli.failures import reported
from exactile.cli.measure_request import MeasureRequest
from exactile.cli.normalization import NormalizationOptions
from exactile.cli.options import (
    AxesOption,
    BundleOrModelArgument,
    ChannelsOption,
    JointOption,
    LevelOption,
    MeanOption,
    MppOption,
    NoCacheOption,
    NoProgressOption,
    NormalizeOption,
    NoVerifyOption,
    OutputNameOption,
    PageOption,
    PercentilesOption,
    ScaleOption,
    SeriesOption,
    StdOption,
    TOption,
    ZOption,
)
from exactile.cli.protection import protect_files
from exactile.cli.values import parse_channels, parse_tile
from exactile.passes.fixed import FixedStatistics
from exactile.plan.budget import parse_bytes
from exactile.request.model_choice import ModelChoice, why_not_run_before
from exactile.request.progress import MeasuringBar
from exactile.sources.address import as_address

EXAMPLES = """
**Examples**

`exactile measure unet.onnx slides/ -o statistics.json --scale 255`

`exactile measure unet.onnx monday.tif tuesday.tif -o statistics.json --scale 255 --memory 4GiB`

`exactile convert unet.onnx -o unet.bundle --scale 255 --freeze-statistics statistics.json`

`exactile run unet.onnx wednesday.tif -o labels.tif --scale 255 --statistics statistics.json`
"""


def measure(
    model: BundleOrModelArgument,
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE", help="Images as for run: one or several, or folders of them.", show_default=False
        ),
    ],
    target: Annotated[
        Path, typer.Option("-o", "--to", help="Output file of the statistics, .json.", show_default=False)
    ],
    scale: ScaleOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    normalize: NormalizeOption = None,
    percentiles: PercentilesOption = None,
    joint_channels: JointOption = False,
    channels: ChannelsOption = None,
    axes: AxesOption = None,
    level: LevelOption = 0,
    mpp: MppOption = None,
    series: SeriesOption = 0,
    z: ZOption = None,
    t: TOption = None,
    page: PageOption = None,
    nodata: Annotated[
        float | None,
        typer.Option(
            metavar="VALUE",
            help="Value of pixels without data: left out when samples are normalised by the whole image (--normalize).",
            show_default=False,
        ),
    ] = None,
    output_name: OutputNameOption = None,
    tile: Annotated[
        str | None, typer.Option(metavar="H[xW]", help="Force the tile of the passes: the padded input shape.")
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Resident memory of the process, e.g. 2GiB. [default: half of what is free]"),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads on a CPU. [default: all cores]")] = None,
    recursive: Annotated[bool, typer.Option("--recursive", help="Search folders of images recursively.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing file, once the new one is complete.")
    ] = False,
    no_verify: NoVerifyOption = False,
    no_cache: NoCacheOption = False,
    no_progress: NoProgressOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a summary as one JSON object on stdout.")] = False,
) -> None:
    """Find the statistics of the whole image that a network takes, over all pixels of many images together.

    With `exactile run --statistics` every image is then run with these, in one pass; `exactile convert
    --freeze-statistics` writes them into a bundle. Options of the model and of images are those of `run`.
    """
    with reported():
        from exactile.passes.statistics_file import check_target

        check_target(target, overwrite=overwrite)
        request = MeasureRequest(
            model=ModelChoice(
                path=model,
                normalization=NormalizationOptions(
                    normalize=normalize,
                    percentiles=percentiles,
                    joint_channels=joint_channels,
                    scale=scale,
                    mean=mean,
                    std=std,
                ),
                output=None,
                threshold=None,
                activation=None,
                output_name=output_name,
                strips=False,
                whole="last",
                unverified=why_not_run_before("tile", no_verify=no_verify),
                memory_bytes=parse_bytes(memory),
                progress=not no_progress,
                cache=not no_cache,
            ),
            sources={
                "axes": axes,
                "channels": parse_channels(channels),
                "level": level,
                "mpp": mpp,
                "series": series,
                "z": z,
                "t": t,
                "page": page,
            },
            nodata=nodata,
            tile=parse_tile(tile),
            memory_bytes=parse_bytes(memory),
            threads=threads,
        )
        found = request.find(images, recursive=recursive)
        protect_files([model], [Path(one) for one in found if as_address(one) is None], files=[(target, "-o")])
        with MeasuringBar("statistics", enabled=not no_progress) as bar:
            statistics, passes = request.run(found, bar.update)
        statistics.write(target, overwrite=overwrite)
        _tell(statistics, passes, target, as_json=as_json)


def _tell(statistics: FixedStatistics, passes: int, target: Path, *, as_json: bool) -> None:
    told: dict[str, Any] = {
        "output": str(target),
        "model": statistics.model,
        "images": len(statistics.images),
        "pixels": statistics.pixels,
        "passes": passes,
        "statistics": len(statistics.values),
        "sha256": statistics.identity,
    }
    if as_json:
        typer.echo(json.dumps(told, indent=2))
        return
    over = f"{passes} pass{'es' if passes != 1 else ''} over each image"
    typer.echo(f"{target}  {told['statistics']} statistics of {statistics.told}; {over}")
