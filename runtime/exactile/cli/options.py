"""Arguments and options that several commands share, so that they read alike everywhere."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

ModelArgument = Annotated[
    Path, typer.Argument(help="The network: an ONNX file, or one with ONNX in it (.czann, .czseg).", show_default=False)
]
BundleOrModelArgument = Annotated[
    Path,
    typer.Argument(
        help="The network: a bundle's folder, an ONNX file, or one with ONNX in it (.czann, .czseg).",
        show_default=False,
    ),
]
ScaleOption = Annotated[
    list[str] | None, typer.Option(help="(sample / scale - mean) / std: one value, or one a channel.")
]
MeanOption = Annotated[list[str] | None, typer.Option(help="See --scale.")]
StdOption = Annotated[list[str] | None, typer.Option(help="See --scale.")]


class OutputChoice(StrEnum):
    labels = "labels"
    multilabel = "multilabel"
    probabilities = "probabilities"
    raw = "raw"


class ActivationChoice(StrEnum):
    """What a network's output still needs to become probabilities."""

    none = "none"
    sigmoid = "sigmoid"
    softmax = "softmax"


ThresholdOption = Annotated[
    float | None,
    typer.Option(
        help="Threshold of the probability, for labels of one channel and for multilabel. [default: 0.5]",
        show_default=False,
    ),
]
ActivationOption = Annotated[
    ActivationChoice | None,
    typer.Option(
        help="Activation that turns the output into probabilities; none: it holds probabilities. [default: as the "
        "graph tells]"
    ),
]


class NormalizeChoice(StrEnum):
    """How samples are normalised before the network."""

    fixed = "fixed"
    zscore = "zscore"
    percentile = "percentile"


NormalizeOption = Annotated[
    NormalizeChoice | None,
    typer.Option(
        help="fixed: by --scale, --mean and --std. By the whole image, read once beforehand: zscore, (sample - mean) / "
        "deviation; percentile, to 0..1 between two percentiles. [default: fixed]"
    ),
]
PercentilesOption = Annotated[
    str | None,
    typer.Option(metavar="LOW,HIGH", help="Percentiles LOW,HIGH for --normalize percentile. [default: 1,99.8]"),
]
JointOption = Annotated[
    bool, typer.Option("--joint-channels", help="Take statistics of all channels together, not of each.")
]
ChannelsOption = Annotated[
    str | None, typer.Option(metavar="LIST", help="Channels of the image to use, e.g. 0,1,2. [default: all]")
]
AxesOption = Annotated[
    str | None,
    typer.Option(metavar="AXES", help="Axes of a .npy or plain Zarr image: YX, YXC or CYX. [default: YX or YXC]"),
]
LevelOption = Annotated[int, typer.Option(min=0, help="Level of a pyramid; 0 is full resolution.")]
MppOption = Annotated[
    float | None,
    typer.Option(
        metavar="MICRONS",
        help="Microns per pixel: take the level with pixels of this size, within 5 %, instead of --level; never "
        "resampled.",
    ),
]
SeriesOption = Annotated[int, typer.Option(min=0, help="Image of a file that holds several.")]
ZOption = Annotated[int | None, typer.Option("--z", min=0, help="Plane of a stack.")]
PageOption = Annotated[
    int | None,
    typer.Option("--page", min=0, help="One page of a TIFF file by its number, instead of --series, --z, --t."),
]
TOption = Annotated[int | None, typer.Option("--t", min=0, help="Time point of a time series.")]


class CorruptChoice(StrEnum):
    """What to do with a chunk of the image that cannot be decoded."""

    fail = "fail"
    fill = "fill"


OnCorruptOption = Annotated[
    CorruptChoice,
    typer.Option(
        help="For a damaged chunk of the image: end the run (fail), or fill it with --corrupt-value and report it "
        "(fill)."
    ),
]
CorruptValueOption = Annotated[
    float | None, typer.Option(help="Value of filled samples. [default: 0]", show_default=False)
]
OutputNameOption = Annotated[str | None, typer.Option(help="Name of the model's output. [default: the first]")]
NoVerifyOption = Annotated[
    bool,
    typer.Option(
        "--no-verify",
        help="Skip the check that runs the network at small sizes in tiles, strips and one pass.",
    ),
]
TrustProbeOption = Annotated[
    bool,
    typer.Option(
        "--trust-probe",
        help="Not proven: a network that no rule proves local runs in tiles of the halo and the period that runs of it "
        "show, and a margin. They are compared with one pass at small sizes before, and must equal it.",
    ),
]
NoCacheOption = Annotated[
    bool,
    typer.Option(
        "--no-cache",
        help="For an ONNX file: ignore the user's cache folder, deploy again and keep nothing.",
    ),
]
NoProgressOption = Annotated[bool, typer.Option("--no-progress", help="No progress bar.")]
