"""The outcome of a case."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["right", "error", "failure"]
LONGEST_MESSAGE = 1000
_UNREADABLE = re.compile(r"\n|<class |object at 0x|Traceback|[\x00-\x08\x0b-\x1f]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """``error`` is one of our errors, clear; ``failure`` is everything that must not happen."""

    verdict: Verdict
    detail: str = ""
    seconds: float = 0.0
    grown_bytes: int = 0


def judge_message(message: str, name: str) -> Outcome:
    """Return the outcome of an error of ours, which must be one readable line that names the file."""
    faults = []
    if name not in message:
        faults.append(f"does not name {name}")
    if len(message) > LONGEST_MESSAGE:
        faults.append(f"has {len(message)} characters")
    if _UNREADABLE.search(message):
        faults.append("is not one readable line")
    if faults:
        return Outcome(verdict="failure", detail=f"the message {' and '.join(faults)}: {message[:300]!r}")
    return Outcome(verdict="error", detail=message)
