"""``exactile tune``: measure the speed of a bundle's tiles and strips on this machine, and keep it in the bundle."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from exactile.cli.failures import reported
from exactile.contract.tuning import Tuning
from exactile.plan.budget import format_bytes, parse_bytes
from exactile.request.progress import MeasuringBar
from exactile.session import Session

EXAMPLES = """
**Examples**

`exactile tune unet.bundle`

`exactile tune unet.bundle --seconds 600 --threads 8`

`exactile run unet.bundle slide.tif -o labels.tif`
"""


def tune(
    bundle: Annotated[Path, typer.Argument(help="A bundle, as convert makes it.", show_default=False)],
    seconds: Annotated[
        float,
        typer.Option(
            min=1, help="Time to spend on measuring; shapes that take longer are left out, the largest first."
        ),
    ] = 120,
    memory: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Resident memory of the process, e.g. 2GiB. [default: half of what is free]"),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads on a CPU. [default: all cores]")] = None,
    no_progress: Annotated[bool, typer.Option("--no-progress", help="Show no progress bar.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was measured as JSON on stdout.")] = False,
) -> None:
    """Time a bundle's tiles and strips on this machine, for faster plans.

    The results are kept in the bundle, as `tuning.json`. `run --plan auto` uses them if the processor, the version of
    ONNX Runtime and `--threads` are the same, and its own rules elsewhere. Run nothing else at the same time.
    """
    with reported():
        from exactile.bundle.opening import open_bundle
        from exactile.tuning.tuning_file import write_tuning

        model = open_bundle(bundle, tuning=False).model  # that may be damaged
        with (
            closing(Session(model, memory_bytes=parse_bytes(memory), threads=threads, device="cpu")) as session,
            MeasuringBar("shapes", enabled=not no_progress) as bar,
        ):
            found = session.tune(seconds=seconds, progress=bar.update)
        path = write_tuning(bundle, found)
        _tell(found, path, as_json=as_json)


def _tell(found: Tuning, path: Path, *, as_json: bool) -> None:
    if as_json:
        typer.echo(_as_json(found))
        return
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for number, head in enumerate(("plan", "shape", "lanes", "memory", "Mpx/s")):
        table.add_column(head, justify="left" if number == 0 else "right")
    for one in found.shapes:
        height, width = one.shape
        cells = (
            f"{height} x {width}",
            str(one.lanes),
            format_bytes(one.activation_bytes),
            f"{1e-6 / one.seconds_per_pixel:.2f}",
        )
        table.add_row(one.kind, *cells)
    Console(highlight=False, soft_wrap=True).print(table)
    typer.echo(f"{path}  {found.machine}, {found.threads} threads")


def _as_json(found: Tuning) -> str:
    import msgspec

    from exactile.tuning.tuning_file import tuning_file

    told: Any = msgspec.json.format(msgspec.json.encode(tuning_file(found)), indent=2)
    return str(told, "utf-8")
