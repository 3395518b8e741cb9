"""Write the options of a command as a settings file."""

from __future__ import annotations

import os
import re
import textwrap
from typing import Any

import exactile
from exactile.cli.settings import Setting, settings_of
from exactile.cli.toml_text import toml_value

WIDTH = 100


def settings_text(context: Any) -> str:
    """Return the effective options of a command as TOML, those that are defaults as comments. Raises OptionError."""
    command = context.command.name
    lines = [
        f"# Options of exactile {command} {exactile.__version__}, for exactile {command} --config FILE.toml ...",
        "# Relative paths start from the folder of this file. Options that are commented out have their defaults.",
    ]
    panel = None
    for setting in settings_of(context.command).values():
        if setting.parameter.rich_help_panel != panel:
            panel = setting.parameter.rich_help_panel
            lines += ["", f"# ---- {panel} ----"]
        lines += ["", *_comment(setting.parameter.help), _line(setting, context.params[setting.parameter.name])]
    return "\n".join([*lines, ""])


def _line(setting: Setting, value: Any) -> str:
    if value in (None, (), []):
        return f"# {setting.key} = {setting.parameter.metavar or '|'.join(setting.choices) or setting.taken}"
    written = toml_value(os.path.abspath(value) if setting.is_path(value) else value)  # noqa: PTH100  # keeps links
    return f"{'# ' if value == setting.parameter.default else ''}{setting.key} = {written}"


def _comment(told: str) -> list[str]:
    """Return the first sentence of a help text, and the default that it names."""
    sentence = re.split(r"(?<!e\.g)\. ", told, maxsplit=1)[0].removesuffix(".")
    named = re.search(r"\[default: [^]]*\]$", told)
    text = f"{sentence}. {named[0] if named and named[0] not in sentence else ''}"
    return textwrap.wrap(text, WIDTH, initial_indent="# ", subsequent_indent="# ")
