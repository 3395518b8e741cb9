"""A step: checks one after the other, each in its own process and within its seconds.

A check that fails, hangs or takes its process down is recorded, and the next one runs. The record is written again
after each check, so that an interrupted step leaves what it found.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from benchmarks.gpu_kit.report import markdown
from benchmarks.harness.worker import ROOT

LAST_WORDS = 3000
"""Characters of what a failed check printed that are recorded."""
KEPT_BYTES = 4 << 20
"""The largest file that a check may keep."""
Outcome = Literal["passed", "failed", "error", "out of time", "not run"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One function to run in its own process.

    ``function`` is ``package.module:name``. It is called with ``arguments`` as keywords and ``folder``, a ``Path`` for
    large files that all checks of a step share; it returns a dict of JSON values with ``passed`` (bool) and, if it
    makes a table, ``rows`` (a list of dicts: column to value). After ``seconds`` it is killed. ``keep`` names files in
    ``folder`` that are copied to the results.
    """

    name: str
    function: str
    seconds: float
    arguments: dict[str, Any] = field(default_factory=dict)
    keep: tuple[str, ...] = ()


def run_step(
    step: str, checks: Iterable[Check], *, results: Path, folder: Path, minutes: float, machine: dict[str, Any]
) -> dict[str, Any]:
    """Run ``checks`` in order within ``minutes``; write ``<step>.json`` and ``<step>.md`` to ``results``.

    ``folder`` holds the large files. ``machine`` is recorded as it is. Returns the record.
    """
    results.mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {"step": step, "machine": machine, "minutes": minutes, "checks": []}
    begin = time.monotonic()
    end = begin + 60 * minutes
    for check in checks:
        left = end - time.monotonic()
        entry = run_check(check, folder, min(check.seconds, left)) if left > 1 else not_run(check)
        record["checks"].append(entry)
        record["seconds"] = round(time.monotonic() - begin, 1)
        _keep(check, folder, results)
        save(record, results)
        print(f"{entry['seconds']:7.1f} s  {entry['outcome']:<11}  {check.name}", flush=True)
    save(record, results)
    return record


def run_check(check: Check, folder: Path, seconds: float) -> dict[str, Any]:
    """Return the check's entry in the record: name, outcome, seconds, what it returned, and its last words if it
    failed.
    """
    entry: dict[str, Any] = {"name": check.name, "function": check.function, "arguments": check.arguments}
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="check-") as scratch:
        answer, log = Path(scratch, "answer.json"), Path(scratch, "log.txt")
        request = json.dumps([check.function, check.arguments, str(folder), str(answer)])
        with log.open("wb") as output:
            status = _run([sys.executable, "-m", "benchmarks.gpu_kit.child", request], output, seconds)
        entry["seconds"] = round(time.monotonic() - begin, 2)
        found = json.loads(answer.read_text()) if answer.exists() else {}
        entry["found"] = found
        entry["outcome"] = outcome(status, found)
        if entry["outcome"] != "passed":
            entry["log"] = log.read_text(errors="replace")[-LAST_WORDS:]
            entry["status"] = status
    return entry


def outcome(status: int | None, found: dict[str, Any]) -> Outcome:
    """Return the outcome; ``status`` is the process's exit status, None if its time was over."""
    if status is None:
        return "out of time"
    if status or "passed" not in found:
        return "error"
    return "passed" if found["passed"] else "failed"


def not_run(check: Check) -> dict[str, Any]:
    """Return the entry of a check that the step had no time for."""
    entry = {"name": check.name, "function": check.function, "arguments": check.arguments}
    return entry | {"seconds": 0.0, "found": {}, "outcome": "not run"}


def save(record: dict[str, Any], results: Path) -> None:
    """Write the record as JSON and Markdown, each in one piece."""
    step = record["step"]
    _replace(results / f"{step}.json", json.dumps(record, indent=1) + "\n")
    _replace(results / f"{step}.md", markdown(record))


def _replace(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    part.replace(path)


def _run(command: list[str], output: Any, seconds: float) -> int | None:
    """Return the exit status; None if it was killed, with all that it started, after ``seconds``."""
    child = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT, start_new_session=True)
    try:
        return child.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        with contextlib.suppress(ProcessLookupError):  # what it started and left behind, too
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _keep(check: Check, folder: Path, results: Path) -> None:
    for name in check.keep:
        path = folder / name
        if path.exists() and path.stat().st_size <= KEPT_BYTES:
            shutil.copyfile(path, results / path.name)
