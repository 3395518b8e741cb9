"""``exactile info``: what a bundle is, and whether it is whole."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from exactile.cli.bundle_text import print_bundle
from exactile.cli.failures import reported

EXAMPLES = """
**Examples**

`exactile info unet.bundle`

`exactile info unet.bundle --test`

`exactile info unet.bundle --json | jq .geometry`
"""


def info(
    bundle: Annotated[Path, typer.Argument(help="The bundle: a folder.", show_default=False)],
    test: Annotated[bool, typer.Option("--test", help="Run the sample image and compare the result.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the contract as JSON on stdout.")] = False,
) -> None:
    """Print a bundle's contract, after checking every file's hash. Exit status 1 when the test fails."""
    with reported():
        from exactile.bundle.opening import open_bundle
        from exactile.bundle.sample import run_sample

        opened = open_bundle(bundle)
        found = run_sample(opened) if test else None
        print_bundle(opened, found, as_json=as_json)
        if found is not None and not found.holds:
            raise typer.Exit(1)
