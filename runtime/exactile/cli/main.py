"""The ``exactile`` command."""

from __future__ import annotations

import gc
import sys
from typing import Annotated

import typer

import exactile
from exactile.cli.commands import Commands
from exactile.cli.exit_status import epilog
from exactile.errors import CancelledError

EXAMPLES = """
**Examples**

`exactile info slide.svs`

`exactile inspect unet.onnx`

`exactile run unet.onnx slide.tif -o labels.tif --scale 255 --memory 2GiB`

`exactile convert unet.onnx -o unet.bundle --scale 255`

`exactile doctor`

`exactile run --help`
"""

app = typer.Typer(
    name="exactile",
    cls=Commands,
    help="Exact segmentation of images larger than memory: the labels of one pass over the whole image, tile by tile.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"exactile {exactile.__version__}")
        raise typer.Exit


@app.callback(epilog=f"{EXAMPLES}\n{epilog()}")
def main(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Exact segmentation of images larger than memory."""


def run() -> None:
    """Entry point of the console script."""
    gc.disable()  # restored when the command is imported
    try:
        app()
    except KeyboardInterrupt:  # before a command ran: there is nothing to clean up
        sys.exit(CancelledError.exit_status)
