"""Help of a command with many options: ``--help`` explains the common ones, ``--help-all`` all of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

EXAMPLES_SHOWN = 6
"""Examples of the short help, from the first."""

_FULL = "exactile.full_help"


def _print_all(context: typer.Context, wanted: bool) -> None:  # typer calls it
    if wanted:
        context.meta[_FULL] = True
        typer.echo(context.get_help())
        raise typer.Exit


HelpAllOption = Annotated[
    bool, typer.Option("--help-all", help="Explain all options and exit.", callback=_print_all, is_eager=True)
]


class ShortHelpCommand(TyperCommand):
    """Explains options without a panel in ``--help``, and names those of each panel."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        if ctx.meta.get(_FULL):
            super().format_help(ctx, formatter)
            return
        with _shortened(self):
            super().format_help(ctx, formatter)


@contextmanager
def _shortened(command: Any) -> Iterator[None]:
    further = [one for one in command.params if getattr(one, "rich_help_panel", None) and not one.hidden]
    epilog = command.epilog
    try:
        for one in further:
            one.hidden = True
        command.epilog = "\n\n".join([*_named(command.name, further), *_first_examples(epilog)])
        yield
    finally:
        command.epilog = epilog
        for one in further:
            one.hidden = False


def _named(command: str, options: list[Any]) -> Iterator[str]:
    yield f"**Further options**, explained by `exactile {command} --help-all`"
    for panel in dict.fromkeys(one.rich_help_panel for one in options):
        names = [one.opts[0] for one in options if one.rich_help_panel == panel]
        yield f"- {panel}: `{' '.join(names)}`"


def _first_examples(epilog: str) -> list[str]:
    title, *examples = [one for one in epilog.split("\n\n") if one.strip()]
    return [title, *examples[:EXAMPLES_SHOWN]]
