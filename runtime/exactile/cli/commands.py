"""The commands, each imported when it is named: a command does not pay for the imports and options of others."""

from __future__ import annotations

import gc
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

NAMES = ("run", "export", "measure", "inspect", "convert", "info", "tune", "verify", "doctor")
"""The commands in the order of the help. The module of each has its name, and holds a function of its name and
EXAMPLES.

PANELS, if there are many options, names those of each panel of the help; the first panel has those without a name.
COMMAND is the class of a command that is not an ordinary one.
"""


class Commands(TyperGroup):
    """The group of all commands; ``commands`` holds those that were requested."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002  # the signature is click's
        return list(NAMES)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        # Suggestions for a wrong name are taken from ``commands``: it has to hold all of them.
        for name in [cmd_name] if cmd_name in NAMES else NAMES:
            if name not in self.commands:
                self.commands[name] = _command(name)
        return super().get_command(ctx, cmd_name)


def _command(name: str) -> Any:
    module = import_module(f"exactile.cli.{name}")
    if not gc.isenabled():  # in our own process: later collections do not look at modules, which stay
        gc.freeze()
        gc.enable()
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")
    of_class = getattr(module, "COMMAND", None)
    alone.command(name, cls=of_class, epilog=module.EXAMPLES)(getattr(module, name))
    command = typer.main.get_command(alone)
    panels: dict[str, list[str]] = getattr(module, "PANELS", {})
    panel_of = {option: panel for panel, options in panels.items() for option in options}
    order = [None, *panels]
    for parameter in command.params:
        if parameter.name in panel_of:
            parameter.rich_help_panel = panel_of[parameter.name]  # type: ignore[attr-defined]  # typer's options have it
    command.params.sort(key=lambda parameter: order.index(panel_of.get(parameter.name or "")))
    return command
