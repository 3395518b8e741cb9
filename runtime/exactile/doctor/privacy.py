"""Remove the user's names and folders from a report, which is made to be shared."""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

SHORTEST_HOST = 6
"""Shortest host name that is replaced: shorter ones are words like ``gpu``."""


class Redaction:
    """Replaces home folders by ``~``, and the names of the user and the host."""

    def __init__(self, names: Mapping[str, str] | None = None) -> None:
        """``names``: replacements of paths."""
        self._rules: list[tuple[re.Pattern[str], str]] = [
            (re.compile(rf"(?<![\w./-]){re.escape(path)}(?![\w-])"), name)
            for path, name in sorted((names or {}).items(), key=lambda item: -len(item[0]))
            if len(path) > 2 and name
        ]
        for home in sorted(_homes(), key=len, reverse=True):
            self._rules.append((re.compile(rf"{re.escape(home)}(?![\w.-])"), "~"))
        self._rules.append((re.compile(r"/(?:home|Users)/[^/\s'\":;,)]+"), "~"))
        if user := _attempt(getpass.getuser):
            self._rules.append((re.compile(rf"(?<=/){re.escape(user)}(?![\w.-])"), "USER"))
        host = _attempt(socket.gethostname)
        if len(host) >= SHORTEST_HOST and host != "localhost":
            self._rules.append((re.compile(rf"(?<![\w.-]){re.escape(host)}(?![\w-])"), "HOST"))

    def text(self, text: str) -> str:
        for pattern, replacement in self._rules:
            text = pattern.sub(lambda _match, replacement=replacement: replacement, text)  # type: ignore[misc]
        return text

    def data(self, value: Any) -> Any:
        """Return plain data with all texts in it redacted."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(str(key)): self.data(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.data(item) for item in value]
        return value


def _homes() -> set[str]:
    found = {os.environ.get("HOME", "")}
    with contextlib.suppress(RuntimeError, OSError):
        found |= {str(Path.home()), str(Path.home().resolve())}
    return {home.rstrip("/") for home in found if len(home.rstrip("/")) > 1}


def _attempt(ask: Callable[[], str]) -> str:
    try:
        return ask()
    except Exception:  # noqa: BLE001  # a user without a name, a host without one
        return ""
