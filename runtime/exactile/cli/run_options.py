"""Arguments and options that only ``exactile run`` has; those that it shares are in ``options``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, get_args

import typer

from exactile.cli.options import OutputChoice


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


# Only a shell that asks for completions pays for these imports.
def _formats() -> list[str]:
    from exactile.cli.run_many import FORMATS

    return list(FORMATS)


def _compressions() -> list[str]:
    from exactile.sinks.tiles.codec import Compression

    return list(get_args(Compression))


def _engines() -> list[str]:
    from exactile.processors.choice import EngineName

    return list(get_args(EngineName))


ImagesArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="IMAGE",
        help="TIFF, slide, Zarr (or URL), .npy, PNG, JPEG, ... Results of several images, or folders, go into a "
        "folder.",
        show_default=False,
    ),
]
TargetOption = Annotated[
    Path,
    typer.Option(
        "-o",
        "--to",
        help="Output: .tif, .ome.tif, .zarr, .npy or .dcm; for many images a folder.",
        show_default=False,
    ),
]
OutputOption = Annotated[
    OutputChoice | None,
    typer.Option(
        help="labels; or (C, H, W): multilabel, 0 or 1 for each channel, probabilities, or raw, the network's own "
        "output. [default: labels]"
    ),
]
PlanOption = Annotated[
    PlanChoice,
    typer.Option(
        "--plan", "-p", help="One whole pass, tiles, strips, or the plan that is predicted to be the fastest."
    ),
]
TileOption = Annotated[
    str | None,
    typer.Option(
        metavar="H[xW]",
        help="Force the padded tile shape, height x width; for strips, rows x band width.",
    ),
]
TrialOption = Annotated[
    bool,
    typer.Option(
        "--trial",
        help="On a CPU, if the run will take longer than 20 s: time the most promising plans on at most 5 % of "
        "the image, and take the fastest.",
    ),
]
MemoryOption = Annotated[
    str | None,
    typer.Option(
        "--memory",
        "-m",
        metavar="SIZE",
        help="Resident memory of the process, e.g. 2GiB. [default: half of what is free]",
    ),
]
BorderOption = Annotated[
    BorderChoice, typer.Option(help="What lies outside the image. model: nothing, the network's own padding acts.")
]
SkipBackgroundOption = Annotated[
    str | None,
    typer.Option(
        metavar="VALUE|MASK|nodata",
        help="Skip tiles that are entirely background: brighter than VALUE ('<VALUE': darker) in every "
        "channel, or 0 in a mask image of any size, or without data.",
    ),
]
BackgroundLabelOption = Annotated[
    int | None,
    typer.Option(min=0, help="Label of skipped background. [default: 0, or --nodata-label]"),
]
NodataOption = Annotated[
    float | None,
    typer.Option(
        metavar="VALUE",
        help="Value of pixels without data, in every channel (also nan): left out of statistics of the whole "
        "image, as are those of a GDAL mask or with alpha 0. [default: GDAL's tag]",
        show_default=False,
    ),
]
NodataLabelOption = Annotated[
    int | None,
    typer.Option(min=0, help="Label of pixels without data. [default: the network's own label]"),
]
ToleranceOption = Annotated[
    str | None,
    typer.Option(
        metavar="SHARE|labels:SHARE",
        help="Allow an error: tiles with a smaller halo within this bound (1e-4 of the range of scores, or "
        "labels:1e-5 of all labels), checked on a sample of tiles; the run is exact if it is exceeded. On a CPU.",
        show_default=False,
    ),
]
StatisticsOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.json",
        help="For a network that takes statistics of the whole image: use this file of exactile measure instead "
        "of the image's own statistics. One pass, any plan and border.",
        show_default=False,
    ),
]
PreviewOption = Annotated[
    bool,
    typer.Option("--preview", help="Also write RESULT.preview.png, the labels in colour, small."),
]
OverlayOption = Annotated[
    bool, typer.Option("--overlay", help="Also write RESULT.overlay.png, the labels over the image.")
]
FormatOption = Annotated[
    str,
    typer.Option(
        "--format",
        help="Suffix of the results of many images.",
        autocompletion=_formats,
    ),
]
RecursiveOption = Annotated[
    bool,
    typer.Option("--recursive", help="Search folders of images recursively; results keep the folder structure."),
]
CompressionOption = Annotated[
    str | None,
    typer.Option(
        help="Compression of the result: zlib, zstd, lzw or none. [default: zlib; in .zarr zstd]",
        autocompletion=_compressions,
    ),
]
PyramidOption = Annotated[
    bool | None,
    typer.Option(
        "--pyramid/--no-pyramid",
        help="Write pyramid levels, each of half the size. [default: for labels and .ome.tif]",
    ),
]
LabelNameOption = Annotated[
    str | None,
    typer.Option(help="Name of the label in a .zarr folder. [default: segmentation]", show_default=False),
]
ResumeOption = Annotated[
    bool,
    typer.Option("--resume", help="Resume an interrupted run, if there is one; the output has the same bytes."),
]
KeepOption = Annotated[
    bool, typer.Option("--keep/--no-keep", help="Keep the finished part when a run is interrupted, for --resume.")
]
DeviceOption = Annotated[
    str,
    typer.Option(
        "--device",
        "-d",
        metavar="DEVICE",
        help="cpu; cuda:0 (also several, cuda:0,cuda:1, or cuda:all); auto: GPUs if they can run the model.",
    ),
]
EngineOption = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="onnxruntime; openvino, on a CPU (:bf16 is faster, and changes labels); tensorrt or tensorrt-rtx "
        "(:fp16 ...), which need built engines; or auto.",
        autocompletion=_engines,
    ),
]
DeviceMemoryOption = Annotated[
    str | None,
    typer.Option(metavar="SIZE", help="Memory of each GPU to use, e.g. 8GiB. [default: nearly all that is free]"),
]
ThreadsOption = Annotated[int | None, typer.Option(min=1, help="Threads on a CPU. [default: all cores]")]
LanesOption = Annotated[
    str,
    typer.Option(
        metavar="N|auto",
        help="On a CPU: number of engines side by side, each with a share of the threads, on its own bands or "
        "tiles. auto: as many as pay off; for many small images, up to four run side by side.",
    ),
]
ClusterOption = Annotated[
    str | None,
    typer.Option(
        metavar="local|ADDRESS",
        help="Run on the workers of a Dask cluster, large images in blocks: local processes (local), or a "
        "scheduler at tcp://HOST:8786. --memory and --threads apply to each worker.",
        show_default=False,
    ),
]
WorkersOption = Annotated[
    int | None, typer.Option(min=1, help="Number of processes of --cluster local. [default: one for each 2 cores]")
]
BlockOption = Annotated[
    int, typer.Option(min=1, help="Edge of a block of --cluster, in pixels of the result, rounded up.")
]
MixedOption = Annotated[
    bool,
    typer.Option(
        "--mixed",
        help="Allow workers of --cluster with other versions and processors; the last digits of scores may differ.",
    ),
]
ScratchOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Folder for feature maps that are kept between passes and do not fit into --memory. [default: the "
        "temporary folder]",
        show_default=False,
    ),
]
ScratchSizeOption = Annotated[
    str | None,
    typer.Option(metavar="SIZE", help="Most disk space to use there, e.g. 50GiB. [default: what is free minus 1 GiB]"),
]
TraceOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.json",
        help="Write a trace of the run, for ui.perfetto.dev or chrome://tracing.",
        show_default=False,
    ),
]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", "-f", help="Replace an existing output, once the new one is complete.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the summary as one JSON object on stdout.")]
