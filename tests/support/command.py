"""The real command line, in a process of its own or in that of the tests."""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from threading import Lock

from typer.testing import CliRunner

from exactile.cli.main import app

SHOWN = {"COLUMNS": "120", "NO_COLOR": "1"}
Done = subprocess.CompletedProcess[str]
ONE_AT_A_TIME = Lock()


@cache
def forks() -> subprocess.Popen[str]:
    """``tests/support/command_forks.py``, until the tests end."""
    script = [sys.executable, str(Path(__file__).with_name("command_forks.py"))]
    process = subprocess.Popen(script, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(process.communicate)
    return process


def exactile(*arguments: object, cwd: Path | None = None, **options) -> Done:
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


def forked(*arguments: object, cwd: Path | None = None) -> Done:
    """The same in a process that is forked where everything is imported: not for what is told of memory or imports."""
    words = [*map(str, arguments)]
    with tempfile.TemporaryDirectory() as folder, ONE_AT_A_TIME:
        stdout, stderr = (Path(folder, name) for name in ("stdout", "stderr"))
        stdout.touch()
        stderr.touch()
        request = {"arguments": words, "folder": str(cwd or Path.cwd()), "environment": {**os.environ, **SHOWN}}
        process = forks()
        process.stdin.write(json.dumps({**request, "stdout": str(stdout), "stderr": str(stderr)}) + "\n")
        process.stdin.flush()
        status = int(process.stdout.readline())
        return subprocess.CompletedProcess(words, status, stdout.read_text(), stderr.read_text())


def within(*arguments: object) -> Done:
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
