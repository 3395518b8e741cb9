"""Arguments and options that several commands share, so that they read alike everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ModelArgument = Annotated[Path, typer.Argument(help="The network: an ONNX file.", show_default=False)]
BundleOrModelArgument = Annotated[
    Path, typer.Argument(help="The network: a bundle's folder, or an ONNX file.", show_default=False)
]
ScaleOption = Annotated[
    list[str] | None, typer.Option(help="(sample / scale - mean) / std: one value, or one a channel.")
]
MeanOption = Annotated[list[str] | None, typer.Option(help="See --scale.")]
StdOption = Annotated[list[str] | None, typer.Option(help="See --scale.")]
ChannelsOption = Annotated[
    str | None, typer.Option(metavar="LIST", help="Channels of the image to use, e.g. 0,1,2. [default: all]")
]
AxesOption = Annotated[
    str | None, typer.Option(metavar="AXES", help="Axes of a .npy image: YX, YXC or CYX. [default: YX or YXC]")
]
LevelOption = Annotated[int, typer.Option(min=0, help="Level of a pyramid; 0 is full resolution.")]
OutputNameOption = Annotated[str | None, typer.Option(help="Which of the model's outputs. [default: the first]")]
NoProgressOption = Annotated[bool, typer.Option("--no-progress", help="No progress bar.")]
