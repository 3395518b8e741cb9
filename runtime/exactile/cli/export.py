"""``exactile export``: copy a result to another format."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from exactile.cli.failures import reported
from exactile.cli.options import NoProgressOption
from exactile.export import export as export_image
from exactile.request.progress import MeasuringBar

EXAMPLES = """
**Examples**

`exactile export labels.zarr -o labels.ome.tif`

`exactile export labels.zarr -o labels.tif --compression zstd --no-pyramid`
"""


def export(
    image: Annotated[
        str,
        typer.Argument(
            metavar="RESULT", help="A .zarr that a run wrote, or any image that can be read.", show_default=False
        ),
    ],
    target: Annotated[
        Path, typer.Option("-o", "--to", help="Where it goes: .tif, .ome.tif, .zarr or .npy.", show_default=False)
    ],
    label_name: Annotated[
        str | None,
        typer.Option(help="Name of the label in the .zarr. [default: segmentation, if it exists]", show_default=False),
    ] = None,
    compression: Annotated[
        str | None, typer.Option(help="zlib, zstd, lzw or none. [default: zlib; in .zarr zstd]", show_default=False)
    ] = None,
    pyramid: Annotated[
        bool | None,
        typer.Option(
            "--pyramid/--no-pyramid",
            help="Write pyramid levels, each of half the size. [default: for labels and .ome.tif]",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing output, once the new one is complete.")
    ] = False,
    no_progress: NoProgressOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was written as one JSON object.")] = False,
) -> None:
    """Copy a result to another format, pixel by pixel, in bounded memory.

    Names and colours of classes are not copied. The output appears under its name only when it is complete.
    """
    with reported():
        begin = time.perf_counter()
        with MeasuringBar(Path(image).name, enabled=not no_progress) as bar:
            shape = export_image(
                image,
                target,
                label=label_name,
                progress=bar.update,
                compression=compression,
                pyramid=pyramid,
                overwrite=overwrite,
            )
        seconds = time.perf_counter() - begin
        if as_json:
            told = {"image": image, "output": str(target), "shape": list(shape), "seconds": round(seconds, 4)}
            typer.echo(json.dumps(told, indent=2))
        else:
            typer.echo(f"{target}  {' x '.join(map(str, shape))}, {seconds:.1f} s")
