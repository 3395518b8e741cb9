"""Write values as TOML."""

from __future__ import annotations

import json
from pathlib import Path

from exactile.errors import OptionError


def toml_value(value: object) -> str:
    """Return ``value`` as TOML; what has no form in it is written as Python does.

    Raises OptionError for text that is not Unicode, which names of files may be.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(toml_value(one) for one in value)}]"
    return _quoted(str(value)) if isinstance(value, str | Path) else str(value)


def _quoted(text: str) -> str:
    """Return a basic string: as in JSON, where DEL needs no escape."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise OptionError(f"{text!r} is not UTF-8; a settings file holds nothing else") from error
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
