"""The real command line, in a process of its own or in that of the tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner

from exactile.cli.main import app

SHOWN = {"COLUMNS": "120", "NO_COLOR": "1"}


def exactile(*arguments: object, cwd: Path | None = None, **options) -> subprocess.CompletedProcess[str]:
    """Run ``python -m exactile`` and keep what it says."""
    return subprocess.run(
        [sys.executable, "-m", "exactile", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=3600,
        check=False,
        env={**os.environ, **SHOWN},
        **options,
    )


def within(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The same in this process, whose frameworks are imported already: for what is told of options and models."""
    words = [*map(str, arguments)]
    outcome = CliRunner().invoke(app, words, env=SHOWN)
    if outcome.exception is not None and not isinstance(outcome.exception, SystemExit):
        raise outcome.exception
    return subprocess.CompletedProcess(words, outcome.exit_code, outcome.stdout, outcome.stderr)


def run_json(*arguments: object, **options) -> dict:
    """The summary of a successful ``exactile run ... --json``; stdout holds nothing else."""
    done = exactile("run", *arguments, "--json", **options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
