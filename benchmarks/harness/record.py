"""What a part found: tables, as JSON with every figure as it was measured, and as Markdown to read."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.harness.machine import describe_machine, machine
from benchmarks.harness.worker import ROOT

Cell = str | int | float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """``columns`` are titles, with a format for numbers behind a bar: ``"by the floor|.2f"``."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[Cell, ...]] = field(default_factory=list)
    note: str = ""

    def add(self, *cells: Cell) -> None:
        """Append a row. Raises ValueError where it does not fit the columns."""
        if len(cells) != len(self.columns):
            raise ValueError(f"{self.title}: {len(cells)} cells for {len(self.columns)} columns")
        self.rows.append(cells)

    def markdown(self) -> str:
        titles, forms = zip(*((*column.split("|"), "")[:2] for column in self.columns), strict=True)
        lines = [f"## {self.title}", "", f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
        for row in self.rows:
            cells = [_shown(cell, form) for cell, form in zip(row, forms, strict=True)]
            lines.append(f"| {' | '.join(cells)} |")
        return "\n".join([*lines, *(["", self.note] if self.note else [])])


@dataclass(slots=True, kw_only=True)
class Record:
    """A part's tables. ``raw`` has what plots and other readers may want; ``arguments`` is what makes them again."""

    part: str
    title: str
    tables: list[Table]
    module: str = ""
    arguments: str = ""
    remarks: str = ""
    raw: dict[str, Any] = field(default_factory=dict)
    pictures: dict[str, Callable[[Path], None]] = field(default_factory=dict)

    @property
    def command(self) -> str:
        return " ".join(filter(None, ["python -m", f"benchmarks.{self.module or self.part}", self.arguments]))

    def save(self, folder: Path) -> Path:
        """Write ``<part>.json``, ``<part>.md`` and the pictures; return the Markdown's path."""
        folder.mkdir(parents=True, exist_ok=True)
        found = machine()
        for name, draw in self.pictures.items():
            draw(folder / name)
        content = {
            "part": self.part,
            "command": self.command,
            "measured": datetime.now(UTC).strftime("%Y-%m-%d"),
            "revision": revision(),
            "machine": found,
            "tables": [asdict(table) for table in self.tables],
            "raw": self.raw,
        }
        (folder / f"{self.part}.json").write_text(json.dumps(content, indent=1, default=_plain) + "\n")
        path = folder / f"{self.part}.md"
        pictures = [f"![{Path(name).stem}]({name})" for name in self.pictures]
        parts = [f"# {self.title}", describe_machine(found), f"Command: `{self.command}`", self.remarks]
        blocks = [*parts, *(table.markdown() for table in self.tables), *pictures]
        path.write_text("\n\n".join(block for block in blocks if block) + "\n")
        return path


def revision() -> str:
    """Return the commit that was measured, with a plus if files other than results differ; empty
    outside a repository.
    """
    commit = _git("rev-parse", "--short", "HEAD")
    changed = _git("status", "--porcelain", "--", ".", ":(exclude)benchmarks/results", ":(exclude)docs/*.png")
    return commit + ("+" if changed else "")


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _shown(cell: Cell, form: str) -> str:
    if cell is None:
        return ""
    if isinstance(cell, str) or not form:
        return str(cell)
    return "-" if math.isnan(cell) else format(cell, form)


def _plain(value: Any) -> Any:
    """Convert numbers of numpy."""
    return value.item()
