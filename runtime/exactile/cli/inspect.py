"""``exactile inspect``: how a network can be tiled and what that costs, or why it cannot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from exactile.cli.failures import reported
from exactile.cli.inspect_json import inspection_object
from exactile.cli.inspect_text import print_inspection
from exactile.cli.options import ModelArgument, OutputNameOption, TrustProbeOption
from exactile.cli.protection import protect_files
from exactile.cli.size_memory import size_memory, whole_memory
from exactile.cli.values import parse_tile
from exactile.request.converter import load_converter, load_prover

EXAMPLES = """
**Examples**

`exactile inspect unet.onnx`

`exactile inspect unet.onnx --json | jq .halo`

`exactile inspect unet.onnx --plot halo.png`

`exactile inspect efficientnet_unet.onnx --size 20000x20000`
"""


def inspect(
    model: ModelArgument,
    output_name: OutputNameOption = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png", help="Draw how the needed interval widens, layer by layer.", show_default=False
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="HxW",
            help="Report the memory of one pass over an image of this height and width, and of kept maps.",
            show_default=False,
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing picture.")] = False,
    trust_probe: TrustProbeOption = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="List every node of each kind of obstacle, and its consequences.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Print a network's geometry, cost and memory, derived from its graph, or the obstacles to exact tiling.

    A small network with obstacles is also probed by running it; with --trust-probe, any network with obstacles is.
    """
    with reported():
        if plot is not None:
            protect_files([model], files=[(plot, "--plot")])
        wanted = parse_tile(size, "--size")
        converter = load_converter()
        network = converter.load_network(model, output_name=output_name)
        inspection = converter.inspect_network(network, trust_probe=trust_probe)
        at = size_memory(inspection, wanted, lambda: whole_memory(converter, network, wanted)) if wanted else None
        if plot is not None:
            inspection.plot(plot, title=model.name, overwrite=overwrite)
        known = load_prover().kept_verification(model, output_name=output_name) if inspection.geometry else None
        if as_json:
            typer.echo(json.dumps(inspection_object(inspection, model, known, at), indent=2))
        else:
            print_inspection(inspection, model, known, at, verbose=verbose)
