"""A command with ``--config`` and ``--dump-config``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from exactile.cli.failures import reported
from exactile.cli.short_help import ShortHelpCommand

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE.toml",
        help="Take options from this file. Those on the command line win; paths in the file are relative to its "
        "folder.",
        show_default=False,
    ),
]
DumpConfigOption = Annotated[
    bool,
    typer.Option("--dump-config", help="Print all options as such a file, with their values, and do nothing else."),
]


class SettingsCommand(ShortHelpCommand):
    """Takes defaults of its options from a settings file, and prints such a file."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if ctx.resilient_parsing:  # a shell asks for completions
            return super().parse_args(ctx, args)
        given, *_ = self.make_parser(ctx).parse_args(list(args))
        if given.get("config") is not None:
            from exactile.cli.settings import read_settings

            with reported():
                ctx.default_map = read_settings(Path(given["config"]), ctx)
        with _not_required(self.params if given.get("dump_config") else ()):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        if not ctx.params["dump_config"]:
            return super().invoke(ctx)
        from exactile.cli.settings_text import settings_text

        with reported():
            typer.echo(settings_text(ctx), nl=False)
        return None


@contextmanager
def _not_required(parameters: Iterable[Any]) -> Iterator[None]:
    required = [one for one in parameters if one.required]
    try:
        for one in required:
            one.required = False
        yield
    finally:
        for one in required:
            one.required = True
