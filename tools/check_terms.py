"""Look for phrases that docs/style.md says to avoid.

``python tools/check_terms.py [FILE ...]`` checks these files, or all that ``CHECKED`` names. The patterns are those of
the table "Avoid" in docs/style.md. Exits with 1 and one line for each place if something is found.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STYLE = ROOT / "docs" / "style.md"
CHECKED = (
    "*.md",
    "docs/**/*.md",
    "runtime/exactile/**/*.py",
    "converters/exactile_converters/**/*.py",
    "benchmarks/**/*.py",
    "fuzz/**/*.py",
    "models/**/*.py",
    "examples/**/*.py",
    "tools/*.py",
)
"""Patterns of files, from the root of the repository."""

UNCHECKED = ("CHANGELOG.md",)
"""Among those, files that are left out."""

ALLOWED = "terms: ok"


@dataclass(frozen=True, slots=True)
class Term:
    """A pattern to avoid, and what to write instead."""

    pattern: re.Pattern[str]
    instead: str


def read_terms(style: str) -> list[Term]:
    """The rows of the table "Avoid". Raises ValueError where there are none."""
    table = style.partition("\n## Avoid\n")[2]
    rows = re.findall(r"^\| (`.+`) \| (.+) \|$", table, re.MULTILINE)
    if not rows:
        raise ValueError(f"{STYLE} has no table of phrases to avoid")
    return [
        Term(re.compile(pattern.replace("\\|", "|"), re.IGNORECASE), instead)  # a bar within a table is written \\|
        for patterns, instead in rows
        for pattern in re.findall(r"`([^`]+)`", patterns)
    ]


def found_in(text: str, terms: list[Term]) -> Iterator[tuple[int, str, str]]:
    """Line number, phrase and what to write, for each place in ``text``."""
    for number, line in enumerate(text.splitlines(), start=1):
        if ALLOWED in line:
            continue
        for term in terms:
            if match := term.pattern.search(line):
                yield number, match[0], term.instead


def checked_files() -> list[Path]:
    """Files that ``CHECKED`` names, without docs/style.md, which lists the phrases."""
    found = {path for pattern in CHECKED for path in ROOT.glob(pattern)}
    return sorted(found - {STYLE} - {ROOT / name for name in UNCHECKED})


def main(arguments: list[str]) -> int:
    terms = read_terms(STYLE.read_text(encoding="utf-8"))
    known = checked_files()
    paths = [path for path in map(Path.resolve, map(Path, arguments)) if path in known] if arguments else known
    places = [
        f"{path.relative_to(ROOT)}:{number}: {phrase!r}; write: {instead}"
        for path in paths
        for number, phrase, instead in found_in(path.read_text(encoding="utf-8"), terms)
    ]
    print(*places, sep="\n", end="\n" if places else "")
    return 1 if places else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
