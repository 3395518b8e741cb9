"""``exactile info``: describe a bundle and check its files, or describe an image and how to choose in its file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from exactile.cli.bundle_text import print_bundle
from exactile.cli.exit_status import CHECK_FAILED
from exactile.cli.failures import reported
from exactile.cli.options import (
    AxesOption,
    ChannelsOption,
    LevelOption,
    MppOption,
    NoProgressOption,
    PageOption,
    SeriesOption,
    TOption,
    ZOption,
)
from exactile.cli.values import parse_channels
from exactile.contract.file_names import CONTRACT_NAME
from exactile.errors import OptionError, SourceError

EXAMPLES = """
**Examples**

`exactile info unet.bundle`

`exactile info unet.bundle --test`

`exactile info unet.bundle --json | jq .geometry`

`exactile info slide.svs`

`exactile info slide.svs --mpp 0.5 --thumbnail slide.png`

`exactile info stack.ome.tif --z 3 --channels 1 --thumbnail plane.png`

`exactile info image.zarr --json | jq '.series[].levels[] | [.level, .height, .width]'`

**Exit status**: 0; 1 where the test fails, or the image is there and cannot be read (the last line says why); 2 for
what is no bundle and no image, and for a choice that does not exist.
"""

_CONTRACT = "contract.json"
_ONNX = "an ONNX model"


def info(
    path: Annotated[
        str,
        typer.Argument(
            metavar="BUNDLE|IMAGE", help="A bundle's folder, or an image: file, folder or address.", show_default=False
        ),
    ],
    test: Annotated[
        bool, typer.Option("--test", help="For a bundle: run the sample image and compare the result.")
    ] = False,
    thumbnail: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png",
            help="For an image: write a thumbnail of at most 512 pixels, from a small level or from means of "
            "blocks. Samples that are not uint8 are stretched between percentiles.",
            show_default=False,
        ),
    ] = None,
    series: SeriesOption = 0,
    level: LevelOption = 0,
    mpp: MppOption = None,
    z: ZOption = None,
    t: TOption = None,
    page: PageOption = None,
    channels: ChannelsOption = None,
    axes: AxesOption = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing picture.")] = False,
    no_progress: NoProgressOption = False,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print the contract, or the description of the image, as one JSON object on stdout."
        ),
    ] = False,
) -> None:
    """Print a bundle's contract, after checking every file's hash; or describe an image, and how to choose in its file.

    For an image: format, axes and sample type, series, levels with their pixel sizes and chunks, planes and channels,
    the options that choose among them, and the command that runs a model on it. Nothing needs to be chosen: the first
    image and plane are taken. Only structure and metadata are read.
    """
    with reported():
        choice: dict[str, Any] = {"series": series, "level": level, "mpp": mpp, "z": z, "t": t, "page": page}
        choice |= {"channels": parse_channels(channels), "axes": axes}
        if _is_bundle(path):
            if thumbnail is not None or any(value not in (None, 0) for value in choice.values()):
                raise OptionError(f"{path} is a bundle; --thumbnail and options that choose are for images")
            _tell_bundle(Path(path), test=test, as_json=as_json)
        else:
            if test:
                raise OptionError(f"{path} is no bundle; --test runs the sample image of a bundle")
            _tell_image(path, choice, thumbnail, overwrite=overwrite, progress=not no_progress, as_json=as_json)


def _is_bundle(path: str) -> bool:
    return Path(path).name == CONTRACT_NAME or (Path(path) / CONTRACT_NAME).is_file()


def _tell_bundle(path: Path, *, test: bool, as_json: bool) -> None:
    from exactile.bundle.opening import open_bundle
    from exactile.bundle.sample import run_sample

    opened = open_bundle(path)
    found = run_sample(opened) if test else None
    print_bundle(opened, found, as_json=as_json)
    if found is not None and not found.holds:
        raise typer.Exit(CHECK_FAILED)


def _tell_image(
    path: str, choice: dict[str, Any], thumbnail: Path | None, *, overwrite: bool, progress: bool, as_json: bool
) -> None:
    from exactile.cli.image_text import print_image
    from exactile.cli.info_thumbnail import check_target, write_thumbnail
    from exactile.sources.description import as_object
    from exactile.sources.descriptions.describe import describe_image

    if thumbnail is not None:
        check_target(path, thumbnail, overwrite=overwrite)
    try:
        description = describe_image(path, **choice)
    except SourceError as error:
        raise SourceError(_advice(path, str(error))) from error
    if thumbnail is not None:
        description = write_thumbnail(path, description, choice["channels"], thumbnail, progress=progress)
    if as_json:
        typer.echo(json.dumps(as_object(description), indent=2))
    else:
        print_image(description)
    if description.problem is not None:
        raise typer.Exit(CHECK_FAILED)


def _advice(path: str, message: str) -> str:
    """Return the remedy for a path that is neither a bundle nor an image."""
    from exactile.file_kinds import file_kind

    if Path(path).is_dir():
        return f"{message}; it is not a bundle either: it holds no {CONTRACT_NAME}"
    kind = file_kind(path)
    if kind is not None and kind.name == _ONNX:
        return f"{path}: is {_ONNX}: exactile inspect {path} says how it can be tiled"
    return message
