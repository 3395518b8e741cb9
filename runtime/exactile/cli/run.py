"""``exactile run``: segment images."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from exactile.cli.failures import reported
from exactile.cli.normalization import NormalizationOptions
from exactile.cli.options import (
    ActivationOption,
    AxesOption,
    BundleOrModelArgument,
    ChannelsOption,
    CorruptChoice,
    CorruptValueOption,
    JointOption,
    LevelOption,
    MeanOption,
    MppOption,
    NoCacheOption,
    NoProgressOption,
    NormalizeOption,
    NoVerifyOption,
    OnCorruptOption,
    OutputChoice,
    OutputNameOption,
    PageOption,
    PercentilesOption,
    ScaleOption,
    SeriesOption,
    StdOption,
    ThresholdOption,
    TOption,
    TrustProbeOption,
    ZOption,
)
from exactile.cli.run_request import RunRequest
from exactile.cli.summary import print_line, print_summary
from exactile.cli.values import parse_channels, parse_lanes, parse_tile
from exactile.contract.tolerance import Tolerance
from exactile.errors import SinkError
from exactile.plan.budget import parse_bytes
from exactile.request.damage import warn_of_damage
from exactile.request.meaning import warn_of_nan
from exactile.request.model_choice import ModelChoice, why_not_run_before
from exactile.request.onnx_models import when_whole
from exactile.request.progress import Bar, ManyBars
from exactile.runs.image_run import Watcher

EXAMPLES = """
**Examples**

`exactile run unet.onnx slide.tif -o labels.tif --scale 255`

`exactile run unet.onnx slide.tif -o labels.ome.tif --memory 2GiB --mean 0.7,0.5,0.6 --std 0.2 --scale 255`

`exactile run unet.bundle slide.tif -o labels.tif`

`exactile run unet.onnx volume.npy -o scores.npy --axes CYX --output raw --tile 512x768`

`exactile run unet.onnx scan.tif -o labels.tif --plan strip --tile 256x8192`

`exactile run unet.bundle slides/ more.svs -o labels/ --format .ome.tif --skip-background 220 --resume`

`exactile run unet.bundle slide.tif -o labels.tif --engine openvino`

`exactile run unet.bundle slide.svs -o labels.tif --device cuda:0 --trace trace.json`

`exactile run unet.onnx slide.svs -o labels.tif --level 1 --channels 0,1,2 --json > summary.json`

`exactile run norms.onnx slides/ -o labels/ --scale 255 --statistics statistics.json`

`exactile run unet.bundle slide.tif -o labels.tif --tolerance labels:1e-5`

`exactile run unet.bundle slide.tif -o labels.zarr --cluster tcp://scheduler:8786 --memory 4GiB --threads 4`
"""

PANELS = {
    "Input": "channels axes level mpp series z t page recursive on_corrupt corrupt_value nodata".split(),
    "Model": "output_name threshold activation scale mean std normalize percentiles joint_channels statistics "
    "no_verify trust_probe no_cache".split(),
    "Plan": "tile border trial tolerance skip_background background_label scratch scratch_size".split(),
    "Output": "suffix compression pyramid label_name nodata_label preview overlay".split(),
    "Device": "engine device_memory threads lanes".split(),
    "Cluster": "cluster workers block mixed".split(),
    "Display": "as_json trace no_progress".split(),
}


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
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE",
            help="TIFF, slide, Zarr (or URL), .npy, PNG, JPEG, ... Results of several images, or folders, go into a "
            "folder.",
            show_default=False,
        ),
    ],
    target: Annotated[
        Path,
        typer.Option(
            "-o",
            "--to",
            help="Output: .tif, .ome.tif, .zarr, .npy or .dcm; for many images a folder.",
            show_default=False,
        ),
    ],
    output: Annotated[
        OutputChoice | None,
        typer.Option(
            help="labels; or (C, H, W): multilabel, 0 or 1 for each channel, probabilities, or raw, the network's own "
            "output. [default: labels]"
        ),
    ] = None,
    threshold: ThresholdOption = None,
    activation: ActivationOption = None,
    plan: Annotated[
        PlanChoice,
        typer.Option(
            "--plan", "-p", help="One whole pass, tiles, strips, or the plan that is predicted to be the fastest."
        ),
    ] = PlanChoice.auto,
    tile: Annotated[
        str | None,
        typer.Option(
            metavar="H[xW]",
            help="Force the padded tile shape, height x width; for strips, rows x band width.",
        ),
    ] = None,
    trial: Annotated[
        bool,
        typer.Option(
            "--trial",
            help="On a CPU, if the run will take longer than 20 s: time the most promising plans on at most 5 % of "
            "the image, and take the fastest.",
        ),
    ] = False,
    memory: Annotated[
        str | None,
        typer.Option(
            "--memory",
            "-m",
            metavar="SIZE",
            help="Resident memory of the process, e.g. 2GiB. [default: half of what is free]",
        ),
    ] = None,
    border: Annotated[
        BorderChoice, typer.Option(help="What lies outside the image. model: nothing, the network's own padding acts.")
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
    mpp: MppOption = None,
    series: SeriesOption = 0,
    z: ZOption = None,
    t: TOption = None,
    page: PageOption = None,
    on_corrupt: OnCorruptOption = CorruptChoice.fail,
    corrupt_value: CorruptValueOption = None,
    output_name: OutputNameOption = None,
    skip_background: Annotated[
        str | None,
        typer.Option(
            metavar="VALUE|MASK|nodata",
            help="Skip tiles that are entirely background: brighter than VALUE ('<VALUE': darker) in every "
            "channel, or 0 in a mask image of any size, or without data.",
        ),
    ] = None,
    background_label: Annotated[
        int | None,
        typer.Option(min=0, help="Label of skipped background. [default: 0, or --nodata-label]"),
    ] = None,
    nodata: Annotated[
        float | None,
        typer.Option(
            metavar="VALUE",
            help="Value of pixels without data, in every channel (also nan): left out of statistics of the whole "
            "image, as are those of a GDAL mask or with alpha 0. [default: GDAL's tag]",
            show_default=False,
        ),
    ] = None,
    nodata_label: Annotated[
        int | None,
        typer.Option(min=0, help="Label of pixels without data. [default: the network's own label]"),
    ] = None,
    tolerance: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE|labels:SHARE",
            help="Allow an error: tiles with a smaller halo within this bound (1e-4 of the range of scores, or "
            "labels:1e-5 of all labels), checked on a sample of tiles; the run is exact if it is exceeded. On a CPU.",
            show_default=False,
        ),
    ] = None,
    statistics: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.json",
            help="For a network that takes statistics of the whole image: use this file of exactile measure instead "
            "of the image's own statistics. One pass, any plan and border.",
            show_default=False,
        ),
    ] = None,
    preview: Annotated[
        bool,
        typer.Option("--preview", help="Also write RESULT.preview.png, the labels in colour, small."),
    ] = False,
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Also write RESULT.overlay.png, the labels over the image.")
    ] = False,
    suffix: Annotated[str, typer.Option("--format", help="Suffix of the results of many images.")] = ".tif",
    recursive: Annotated[
        bool,
        typer.Option("--recursive", help="Search folders of images recursively; results keep the folder structure."),
    ] = False,
    compression: Annotated[
        str | None,
        typer.Option(help="Compression of the result: zlib, zstd, lzw or none. [default: zlib; in .zarr zstd]"),
    ] = None,
    pyramid: Annotated[
        bool | None,
        typer.Option(
            "--pyramid/--no-pyramid",
            help="Write pyramid levels, each of half the size. [default: for labels and .ome.tif]",
        ),
    ] = None,
    label_name: Annotated[
        str | None,
        typer.Option(help="Name of the label in a .zarr folder. [default: segmentation]", show_default=False),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Resume an interrupted run, if there is one; the output has the same bytes."),
    ] = False,
    keep: Annotated[
        bool, typer.Option("--keep/--no-keep", help="Keep the finished part when a run is interrupted, for --resume.")
    ] = True,
    device: Annotated[
        str,
        typer.Option(
            "--device",
            "-d",
            metavar="DEVICE",
            help="cpu; cuda:0 (also several, cuda:0,cuda:1, or cuda:all); auto: GPUs if they can run the model.",
        ),
    ] = "auto",
    engine: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="onnxruntime; openvino, on a CPU (:bf16 is faster, and changes labels); tensorrt or tensorrt-rtx "
            "(:fp16 ...), which need built engines; or auto.",
        ),
    ] = "auto",
    device_memory: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Memory of each GPU to use, e.g. 8GiB. [default: nearly all that is free]"),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads on a CPU. [default: all cores]")] = None,
    lanes: Annotated[
        str,
        typer.Option(
            metavar="N|auto",
            help="On a CPU: number of engines side by side, each with a share of the threads, on its own bands or "
            "tiles. auto: as many as pay off; for many small images, up to four run side by side.",
        ),
    ] = "auto",
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="local|ADDRESS",
            help="Run on the workers of a Dask cluster, large images in blocks: local processes (local), or a "
            "scheduler at tcp://HOST:8786. --memory and --threads apply to each worker.",
            show_default=False,
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Number of processes of --cluster local. [default: one for each 2 cores]")
    ] = None,
    block: Annotated[
        int, typer.Option(min=1, help="Edge of a block of --cluster, in pixels of the result, rounded up.")
    ] = 4096,
    mixed: Annotated[
        bool,
        typer.Option(
            "--mixed",
            help="Allow workers of --cluster with other versions and processors; the last digits of scores may differ.",
        ),
    ] = False,
    scratch: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder for feature maps that are kept between passes and do not fit into --memory. [default: the "
            "temporary folder]",
            show_default=False,
        ),
    ] = None,
    scratch_size: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE", help="Most disk space to use there, e.g. 50GiB. [default: what is free minus 1 GiB]"
        ),
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.json",
            help="Write a trace of the run, for ui.perfetto.dev or chrome://tracing.",
            show_default=False,
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", "-f", help="Replace an existing output, once the new one is complete.")
    ] = False,
    no_verify: NoVerifyOption = False,
    trust_probe: TrustProbeOption = False,
    no_cache: NoCacheOption = False,
    no_progress: NoProgressOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as one JSON object on stdout.")] = False,
) -> None:
    """Segment images of any size exactly: the result equals one pass over the whole image.

    The output appears under its name only when it is complete. The finished part of an interrupted run is kept beside
    it.
    """
    with reported():
        request = RunRequest(
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
                output=output.value if output is not None else None,
                threshold=threshold,
                activation=activation.value if activation is not None else None,
                output_name=output_name,
                strips=plan.value in ("auto", "strip") and skip_background is None,
                whole=when_whole(plan.value, tiles=_in_tiles(tile, skip_background), fixed=statistics is not None),
                unverified=why_not_run_before(plan.value, no_verify=no_verify, fixed=statistics is not None),
                memory_bytes=parse_bytes(memory),
                progress=not no_progress,
                cache=not no_cache,
                trust_probe=trust_probe,
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
                "on_corrupt": on_corrupt.value,
                "corrupt_value": corrupt_value,
            },
            sinks={
                "overwrite": overwrite,
                "compression": compression,
                "pyramid": pyramid,
                "resumable": keep or resume,
                "label": label_name,
            },
            plan=plan.value,
            tile=parse_tile(tile),
            trial=trial,
            border=border.value,
            skip_background=skip_background,
            background_label=background_label,
            nodata=nodata,
            nodata_label=nodata_label,
            memory_bytes=parse_bytes(memory),
            threads=threads,
            lanes=parse_lanes(lanes),
            device=device,
            engine=engine,
            device_memory_bytes=parse_bytes(device_memory),
            scratch=scratch,
            scratch_bytes=parse_bytes(scratch_size, "--scratch-size"),
            statistics=statistics,
            tolerance=None if tolerance is None else Tolerance.parse(tolerance),
            trace=trace,
            resume=resume,
            pictures={"preview": preview, "overlay": overlay},
        )
        one = len(images) == 1 and not _is_folder(target) and not _is_folder_of_images(images[0])
        progress = not no_progress
        if cluster is not None:
            from exactile.cli.run_cluster import Cluster, run_many_on_cluster, run_on_cluster  # Dask is imported there

            where = Cluster(address=cluster, workers=workers, block=block, mixed=mixed)
            if one:
                run_on_cluster(request, images[0], target, where, progress=progress, as_json=as_json)
            else:
                run_many_on_cluster(request, images, target, where, suffix=suffix, recursive=recursive,
                                    progress=progress, as_json=as_json)  # fmt: skip
        elif one:
            run_one(request, images[0], target, progress=progress, as_json=as_json)
        else:
            run_many(request, images, target, suffix=suffix, recursive=recursive, overwrite=overwrite,
                     progress=progress, as_json=as_json)  # fmt: skip


def run_one(request: RunRequest, image: str, target: Path, *, progress: bool, as_json: bool) -> None:
    """Run one image, into the file or folder ``target``."""
    from exactile.cli.protection import protect_run
    from exactile.sinks.open import check_target
    from exactile.sinks.protocol import ResumableSink

    sink = request.open_sink(target)
    protect_run(request, [image], [target])
    check_target(target, overwrite=bool(request.sinks["overwrite"]))
    request.load()
    source = request.open_source(image)
    try:
        with Bar(Path(image).name, enabled=progress) as bar:
            watcher = Watcher(planned=bar.start, progress=bar.advance, measuring=bar.measure)
            run = request.image_run(source, sink, watcher, image, target)
            summary = run.run()
    except BaseException:
        if isinstance(sink, ResumableSink) and sink.keeps:
            typer.echo(f"what is done of {target} is kept: resume it with --resume", err=True)
        raise
    finally:
        source.close()
        request.close()
    print_summary(summary, model=request.model.path, image=image, target=target, as_json=as_json)
    warn_of_damage(summary.damage, image)
    warn_of_nan(summary.nan, run.model.contract.result, image)
    request.write_trace()


def run_many(
    request: RunRequest,
    paths: list[str],
    folder: Path,
    *,
    suffix: str,
    recursive: bool,
    overwrite: bool,
    progress: bool,
    as_json: bool,
) -> None:
    """Run many images, into ``folder``; report failures at the end."""
    from exactile.cli.protection import protect_run
    from exactile.cli.run_many import ManyImages, prepare_folder, tell_failures
    from exactile.runs.batch import worth_side_by_side

    suffix = suffix if suffix.startswith(".") else f".{suffix}"
    found = prepare_folder(paths, folder, suffix, recursive=recursive)
    images = found.images
    request.keep_engine, request.side_by_side = True, worth_side_by_side(len(images))
    bars = ManyBars(len(images), enabled=progress)
    many = ManyImages(request=request, found=found, folder=folder, suffix=suffix, overwrite=overwrite, bars=bars)
    protect_run(request, images, [many.target(image) for image in images])
    request.load()
    told: list[dict[str, Any]] = []
    try:
        failed = many.run(told.append if as_json else print_line)
    finally:
        request.close()
    if as_json:
        typer.echo(json.dumps(told, indent=2))
    try:
        request.write_trace()
    except SinkError as error:
        if not failed:
            raise
        typer.echo(f"error: {error}", err=True)
    tell_failures(failed, len(images))


def _in_tiles(tile: str | None, skip_background: str | None) -> bool:
    """Return whether an option is given that only tiles have."""
    return tile is not None or skip_background is not None


def _is_folder(target: Path) -> bool:
    """Return whether results go into ``target`` under the names of their images."""
    from exactile.sinks.zarr.sink import zarr_target

    return not zarr_target(target) and (target.is_dir() or not target.suffix)


def _is_folder_of_images(path: str) -> bool:
    from exactile.sources.listing import is_image_folder

    return is_image_folder(path)
