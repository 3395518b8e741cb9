"""``exactile doctor``: check whether this machine works, and computes what it should."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from exactile.cli.exit_status import CHECK_FAILED
from exactile.cli.failures import reported

EXAMPLES = """
**Examples**

`exactile doctor`

`exactile doctor --device cuda:0`

`exactile doctor unet.bundle --device cuda:0`

`exactile doctor --json | jq '.findings[] | select(.status == "failed")'`

**Exit status**: 0 what was requested works, 1 it does not, 2 the command was not understood.
"""


def doctor(
    bundle: Annotated[
        Path | None,
        typer.Argument(help="Also check this bundle: its files, its sample, its engines.", show_default=False),
    ] = None,
    device: Annotated[
        str,
        typer.Option(
            metavar="DEVICE",
            help="Device to check: cpu; cuda:0 and the like; auto: the CPU, and GPUs if there are any.",
        ),
    ] = "auto",
    time_limit: Annotated[
        float,
        typer.Option(metavar="SECONDS", min=1, help="Time limit of each check that may hang; builds take a while."),
    ] = 300.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Check this machine: versions, driver, GPUs, engines; run a small network on every device, and compare.

    The report is made to be shared: it holds no names of users, hosts or folders.
    """
    with reported():
        from exactile.doctor.examination import examine
        from exactile.doctor.report import as_object, as_text

        report = examine(device=device, bundle=bundle, limit_s=time_limit)
        typer.echo(json.dumps(as_object(report), indent=2) if as_json else as_text(report), nl=as_json)
        if not report.works:
            raise typer.Exit(CHECK_FAILED)
