"""Run a check in its own process, with a time limit: a crash or a hang there becomes a finding."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exactile.doctor.finding import Finding, of_error, one_line, sentence

PATIENCE_S = 5.0
"""Seconds to wait for a killed process; one that hangs in the driver cannot even be killed."""

LONGEST_WORDS = 200
LARGEST_TOLD_BYTES = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Isolation:
    """Runs checks one after the other, each at most ``limit_s`` seconds."""

    limit_s: float

    def run(self, check: str, *, group: str, name: str, **arguments: Any) -> list[Finding]:
        """Return what ``check`` found; ``group`` and ``name`` are for a finding that says how the check
        itself failed.
        """
        given = {**arguments, "group": group, "name": name}
        try:
            with tempfile.TemporaryDirectory(prefix="exactile-doctor-", ignore_cleanup_errors=True) as folder:
                return self._run(check, given, Path(folder))
        except OSError as error:
            return [of_error(group, name, error)]

    def _run(self, check: str, given: Mapping[str, Any], folder: Path) -> list[Finding]:
        told, words = folder / "told", folder / "words"
        told.touch()
        asked = [check, str(told), str(os.getpid()), json.dumps(given)]
        command = [sys.executable, "-P", "-m", "exactile.doctor.child", *asked]
        status = _status(command, words, self.limit_s)
        found, doing, done = _read(told)
        if status == 0 and done:
            return found
        reason = f"it was stopped after {self.limit_s:g} s" if status is None else _ended(status, words)
        says = sentence(f"{doing[:1].upper()}{doing[1:]}: {reason}")
        failed = Finding(
            group=given["group"],
            check=given["name"],
            status="failed",
            says=says,
            remedy=_remedy(status),
            facts={"doing": doing, "exit_status": status, "time_limit_s": self.limit_s},
        )
        return [*found, failed]


def _status(command: Sequence[str], words: Path, limit_s: float) -> int | None:
    """Return the exit status; None if the process had to be stopped."""
    with words.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603  # this very Python
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        return process.wait(limit_s)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.poll() is None:
            _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the process and those that it started."""
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(PATIENCE_S)


def _read(told: Path) -> tuple[list[Finding], str, bool]:
    """Return findings, the last action, and whether the check finished. A line may be cut off."""
    found: list[Finding] = []
    doing, done = "starting", False
    with told.open("rb") as file:
        text = file.read(LARGEST_TOLD_BYTES).decode("utf-8", errors="replace")
    for line in text.splitlines():
        try:
            said = json.loads(line)
        except ValueError:
            continue
        doing = said.get("doing", doing)
        done = said.get("done", done)
        if "finding" in said:
            found.append(Finding(**said["finding"]))
    return found, doing, done


def _ended(status: int, words: Path) -> str:
    if status >= 0:
        said = _last_words(words)
        return f"the process ended with status {status}" + (f", and said: {said}" if said else "")
    with contextlib.suppress(ValueError):
        return f"the process was ended by {signal.Signals(-status).name}"
    return f"the process was ended by signal {-status}"


def _last_words(words: Path) -> str:
    lines = [line for line in words.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return one_line(lines[-1], LONGEST_WORDS) if lines else ""


def _remedy(status: int | None) -> str:
    if status is None:
        return "see dmesg and nvidia-smi for a GPU that hangs; on a slow machine, give more time with --time-limit."
    if status == -signal.SIGKILL:
        return "most likely memory ran out: see dmesg, and give the machine or the container more."
    if status < 0:
        return "a library or the driver crashed: see dmesg; update the driver and reinstall the package in use."
    return "reinstall the package in use; if that does not help, report it."
