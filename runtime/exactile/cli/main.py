"""The ``exactile`` command."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import exactile
from exactile.cli import convert as convert_command
from exactile.cli import doctor as doctor_command
from exactile.cli import info as info_command
from exactile.cli import inspect as inspect_command
from exactile.cli import measure as measure_command
from exactile.cli import run as run_command
from exactile.cli import tune as tune_command
from exactile.cli import verify as verify_command
from exactile.errors import CancelledError

EXAMPLES = """
**Examples**

`exactile inspect unet.onnx`

`exactile run unet.onnx slide.tif -o labels.tif --scale 255 --memory 2GiB`

`exactile convert unet.onnx -o unet.bundle --scale 255`

`exactile doctor`

`exactile run --help`
"""

app = typer.Typer(
    name="exactile",
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


@app.callback(epilog=EXAMPLES)
def main(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Exact segmentation of images larger than memory."""


app.command("run", epilog=run_command.EXAMPLES)(run_command.run)
app.command("measure", epilog=measure_command.EXAMPLES)(measure_command.measure)
app.command("inspect", epilog=inspect_command.EXAMPLES)(inspect_command.inspect)
app.command("convert", epilog=convert_command.EXAMPLES)(convert_command.convert)
app.command("info", epilog=info_command.EXAMPLES)(info_command.info)
app.command("tune", epilog=tune_command.EXAMPLES)(tune_command.tune)
app.command("verify", epilog=verify_command.EXAMPLES)(verify_command.verify)
app.command("doctor", epilog=doctor_command.EXAMPLES)(doctor_command.doctor)


def run() -> None:
    """Entry point of the console script."""
    try:
        app()
    except KeyboardInterrupt:  # before a command was under way: there is nothing to clean up
        sys.exit(CancelledError.exit_status)
