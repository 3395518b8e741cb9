"""The real command line in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path


def exactile(*arguments: object, cwd: Path | None = None, **options) -> subprocess.CompletedProcess[str]:
    """Run ``python -m exactile`` and keep what it says."""
    return subprocess.run(
        [sys.executable, "-m", "exactile", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=3600,
        check=False,
        env={**os.environ, "COLUMNS": "120", "NO_COLOR": "1"},
        **options,
    )


def run_json(*arguments: object, **options) -> dict:
    """The summary of a successful ``exactile run ... --json``; stdout holds nothing else."""
    done = exactile("run", *arguments, "--json", **options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
