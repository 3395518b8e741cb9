"""What one check found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["ok", "warning", "failed", "not applicable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One sentence about ``check``, a remedy if something is wrong, and the same as plain data."""

    group: str
    check: str
    status: Status
    says: str
    remedy: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


class Telling:
    """Where a check reports what it is doing, and what it found. ``tell`` passes on plain data."""

    def __init__(self, tell: Callable[[Mapping[str, Any]], None]) -> None:
        self._tell = tell

    def doing(self, what: str) -> None:
        """Report the current action, in case the process ends during it."""
        self._tell({"doing": what})

    def found(self, finding: Finding) -> None:
        self._tell({"finding": {name: getattr(finding, name) for name in Finding.__slots__}})


def of_error(group: str, check: str, error: BaseException, *, status: Status = "failed") -> Finding:
    """Return the message of ``error`` in one line; messages of this package include a remedy."""
    from exactile.errors import ExactileError

    text = one_line(str(error)) or "no message"
    says = text if isinstance(error, ExactileError) else f"{type(error).__name__}: {text}"
    return Finding(group=group, check=check, status=status, says=sentence(says))


def one_line(text: str, longest: int = 1000) -> str:
    return " ".join(text.split())[:longest]


def sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."
