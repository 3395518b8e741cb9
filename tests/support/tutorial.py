"""``python -m tests.support.tutorial DOCUMENT``: run its blocks in their order, in the current folder.

Blocks with a title become files. ``python`` blocks share one namespace, as in a notebook; ``sh`` blocks are run by bash
and must succeed. Every line of a ``text`` block must be in what the block before it printed.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

from tests.support.documents import Block, blocks
from tests.support.folders import ROOT


def run_tutorial(document: Path, folder: Path, *, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Run it in a process of its own, where ``python`` and ``exactile`` are those of the tests."""
    programs = folder / ".programs"
    programs.mkdir()
    for name, arguments in (("python", ""), ("exactile", "-m exactile ")):
        script = programs / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments}"$@"\n')
        script.chmod(0o755)
    paths = [str(ROOT), *(str(Path(path).resolve()) for path in os.environ.get("PYTHONPATH", "").split(":") if path)]
    environment = {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": ":".join(paths),
        "MPLBACKEND": "Agg",
    }
    return subprocess.run(
        [sys.executable, "-m", "tests.support.tutorial", str(document)],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def main(document: Path) -> None:
    scope: dict[str, object] = {"__name__": "__main__"}
    said = ""
    for block in blocks(document):
        where = f"{document.name}:{block.line}"
        if block.title:
            Path(block.title).write_text(block.code, encoding="utf-8")
        elif block.language == "python":
            said = _python(block, where, scope)
        elif block.language == "sh":
            said = _shell(block, where)
        elif block.language == "text":
            missing = [line for line in block.code.splitlines() if line not in said]
            assert not missing, f"{where}: {missing[0]!r} was not printed, but:\n{said}"
        else:
            raise ValueError(f"{where}: blocks of {block.language!r} cannot be run")


def _python(block: Block, where: str, scope: dict[str, object]) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile("\n" * (block.line - 1) + block.code, where, "exec"), scope)  # so that lines are the document's
    return printed.getvalue()


def _shell(block: Block, where: str) -> str:
    done = subprocess.run(["bash", "-e", "-c", block.code], stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0, f"{where}: status {done.returncode} after:\n{done.stdout}"
    return done.stdout


if __name__ == "__main__":
    main(Path(sys.argv[1]))
