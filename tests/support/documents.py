"""Blocks of code in Markdown documents."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_TITLE = re.compile(r'title="([^"]+)"')


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """``title`` is the name of the file that it is the content of, if any; ``line`` is that of its first line."""

    language: str
    title: str
    code: str
    line: int


def blocks(document: Path) -> list[Block]:
    """All blocks between fences at the beginning of a line."""
    found: list[Block] = []
    info, lines, first = None, [], 0
    for number, line in enumerate(document.read_text(encoding="utf-8").splitlines(keepends=True), start=1):
        if info is None and line.startswith("```"):
            info, lines, first = line[3:].strip(), [], number + 1
        elif info is not None and line.rstrip() == "```":
            title = _TITLE.search(info)
            code, language = "".join(lines), info.partition(" ")[0]
            found.append(Block(language=language, title=title[1] if title else "", code=code, line=first))
            info = None
        elif info is not None:
            lines.append(line)
    if info is not None:
        raise ValueError(f"{document}:{first}: the block has no end")
    return found


def code(document: Path, language: str) -> list[str]:
    """The blocks of one language."""
    return [block.code for block in blocks(document) if block.language == language]
