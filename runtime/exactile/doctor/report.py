"""All findings and the verdict, as text to be pasted and as plain data."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import exactile
from exactile.doctor.finding import Finding, Status
from exactile.doctor.privacy import Redaction
from exactile.json_schema import schema_of

FORMAT, VERSION = "exactile.doctor", 1
WIDTH = 110
WORDS: Mapping[Status, str] = {"ok": "ok", "warning": "WARNING", "failed": "FAILED", "not applicable": "n/a"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The report. ``works``: the requested ``device`` works. ``bundle`` is the name of the bundle that was also
    checked.
    """

    format: Literal["exactile.doctor"]
    version: Literal[1]
    exactile: str
    device: str
    bundle: str | None
    works: bool
    verdict: str
    findings: tuple[Finding, ...]


def made(
    *, device: str, bundle: str | None, works: bool, verdict: str, findings: Sequence[Finding], redaction: Redaction
) -> Report:
    """Return the report, redacted."""
    return Report(
        format="exactile.doctor",
        version=1,
        exactile=exactile.__version__,
        device=device,
        bundle=bundle,
        works=works,
        verdict=redaction.text(verdict),
        findings=tuple(Finding(**redaction.data(_plain(finding))) for finding in findings),
    )


def as_object(report: Report) -> dict[str, Any]:
    """Return plain data; ``report_schema`` is its JSON Schema."""
    return asdict(report)


def as_text(report: Report) -> str:
    """Return a block of lines: a group's name, then each check, what it found and what to do."""
    widest = max((len(finding.check) for finding in report.findings), default=0)
    lines = [f"exactile {report.exactile} doctor, --device {report.device}"]
    group = ""
    for finding in report.findings:
        if finding.group != group:
            group = finding.group
            lines += ["", group]
        lines += _lines(finding, min(widest, 28))
    lines += ["", *textwrap.wrap(report.verdict, WIDTH, break_long_words=False)]
    return "\n".join(lines) + "\n"


def report_schema() -> dict[str, Any]:
    return {**schema_of(Report), "title": FORMAT}


def _lines(finding: Finding, width: int) -> list[str]:
    front = f"  {WORDS[finding.status]:8}{finding.check:{width}}  "
    indent = " " * (10 + width + 2)
    text = [finding.says] + ([f"What to do: {finding.remedy}"] if finding.remedy else [])
    wrapped = [line for part in text for line in _wrapped(part, WIDTH - len(indent))]
    if len(front) > len(indent):
        return [front.rstrip(), *(indent + line for line in wrapped)]
    return [front + wrapped[0], *(indent + line for line in wrapped[1:])]


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False) or [""]


def _plain(finding: Finding) -> dict[str, Any]:
    return {name: getattr(finding, name) for name in Finding.__slots__}
