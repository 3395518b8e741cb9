"""Settings files: options of a command in TOML, under their long names with underscores."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

import typer

from exactile.cli.background import names_a_mask
from exactile.cli.toml_text import toml_value
from exactile.errors import OptionError

OWN = ("config", "dump_config", "help_all")
"""Options about settings files and the help, which no file holds."""

JOINED = {"tile": "x", "channels": ",", "percentiles": ","}
"""Options that the command line takes as numbers with this between them, and a file also as an array."""

TAKEN = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "text or a number",
    list: "text, a number, or an array of them",
    Path: "the text of a path",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """An option of a command as a key of a settings file. ``type`` is that of its values on the command line."""

    key: str
    parameter: Any
    type: Any

    @property
    def choices(self) -> list[str]:
        """Return the values of an option that has few; else nothing."""
        return [one.value for one in self.type] if inspect.isclass(self.type) and issubclass(self.type, StrEnum) else []

    @property
    def taken(self) -> str:
        """Return what a file may hold, in words."""
        if self.choices:
            return " or ".join((", ".join(self.choices[:-1]), self.choices[-1]))
        plain = get_origin(self.type) or self.type
        return TAKEN[plain] + (", or an array of numbers" if self.key in JOINED else "")

    def is_path(self, value: object) -> bool:
        """Return whether ``value`` names a file or folder of this machine."""
        return self.type is Path or (self.key == "skip_background" and names_a_mask(str(value)))

    def read(self, value: object, file: Path) -> Any:
        """Return ``value`` of ``file`` as the command line takes it. Raises OptionError for a wrong type."""
        taken = self._words(value)
        if taken is None:
            hint = nearest(value, self.choices) if isinstance(value, str) else ""
            raise OptionError(f"{file}: {self.key} takes {self.taken}, not {toml_value(value)}{hint}")
        return str(file.parent / taken) if self.is_path(taken) else taken

    def _words(self, value: object) -> Any:
        """Return what the command line would hold; None for a wrong type."""
        if isinstance(value, bool) or self.type is bool:
            fits = isinstance(value, bool) and self.type is bool
        elif self.choices:
            fits = value in self.choices
        elif self.type in (Path, int, float):
            fits = isinstance(value, str if self.type is Path else int if self.type is int else int | float)
        else:
            return self._text(value)
        return value if fits else None

    def _text(self, value: object) -> str | list[str] | None:
        """Return the text, or the texts, of an option of text; None for a wrong type."""
        words = [str(one) for one in (value if isinstance(value, list) else [value]) if _is_word(one)]
        if not words or (isinstance(value, list) and len(words) < len(value)):
            return None
        if get_origin(self.type) is list:
            return words
        if isinstance(value, list):
            return JOINED[self.key].join(words) if self.key in JOINED else None
        return words[0]


def settings_of(command: Any) -> dict[str, Setting]:
    """Return the options of ``command`` by their keys, in the order of its help."""
    hints = get_type_hints(inspect.unwrap(command.callback))
    options = [one for one in command.params if one.param_type_name == "option" and one.name not in OWN]
    keys = [next(name for name in one.opts if name.startswith("--"))[2:].replace("-", "_") for one in options]
    return {
        key: Setting(key=key, parameter=option, type=_without_none(hints[option.name]))
        for key, option in zip(keys, options, strict=True)
    }


def read_settings(file: Path, context: Any) -> dict[str, Any]:
    """Return the values of a settings file by the names of the command's parameters.

    Raises OptionError for a file that cannot be read, an unknown key, and a value of a wrong type or out of range.
    """
    known = settings_of(context.command)
    values = {}
    for key, value in _parsed(file).items():
        if isinstance(value, dict):
            raise OptionError(f"{file}: [{key}] is a table; options stand at the top, outside of tables")
        if key not in known:
            hint = nearest(key.replace("-", "_"), known)
            raise OptionError(f"{file}: {key} is not an option of {context.command.name}{hint}")
        setting = known[key]
        values[setting.parameter.name] = taken = setting.read(value, file)
        try:
            setting.parameter.process_value(context, taken)
        except typer.BadParameter as error:
            raise OptionError(f"{file}: {key} = {toml_value(value)}: {error.message}") from error
    return values


def nearest(word: str, words: Iterable[str]) -> str:
    """Return a question with the one of ``words`` that is most like ``word``; nothing if none is."""
    from difflib import get_close_matches

    found = get_close_matches(word, list(words), n=1)
    return f"; did you mean {found[0]}?" if found else ""


def _parsed(file: Path) -> dict[str, Any]:
    import tomllib

    try:
        with file.open("rb") as opened:
            return tomllib.load(opened)
    except OSError as error:
        raise OptionError(f"--config {file}: {error.strerror}") from error
    except ValueError as error:  # also where it is not UTF-8
        raise OptionError(f"--config {file}: not a TOML file: {error}") from error


def _is_word(value: object) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _without_none(hint: Any) -> Any:
    if not isinstance(hint, UnionType):
        return hint
    (plain,) = (one for one in get_args(hint) if one is not NoneType)
    return plain
