"""Run one command and report its peak resident memory: the kernel's figure, for that process alone.

``python -S -E launch.py``: a request as JSON on standard input, the answer as JSON on standard output. The kernel
counts for a child what its parent had when it was started, so the parent has to be small: this one imports little.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time


def launch(command: list[str], *, environment: dict[str, str], kill_at: tuple[str, int] | None) -> dict[str, object]:
    """Run the command. ``kill_at``: a file, and the bytes from which on the command is killed."""
    own_peak_bytes = _peak_bytes(os.getpid())
    with open("out", "w+b") as out, open("err", "w+b") as err:  # noqa: PTH123 -- pathlib would be half of this process
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment)
        if kill_at is not None:
            _kill_late(process.pid, *kill_at)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        texts = {name: _text(file) for name, file in (("out", out), ("err", err))}
    return {
        "status": process.returncode,
        "peak_bytes": usage.ru_maxrss * 1024,
        "launcher_bytes": own_peak_bytes,
    } | texts


def _kill_late(pid: int, path: str, size_bytes: int) -> None:
    """Wait until the file is large enough, or the process has ended."""
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if os.path.exists(path) and os.path.getsize(path) >= size_bytes:  # noqa: PTH110, PTH202
            os.kill(pid, signal.SIGKILL)
            return
        time.sleep(0.005)


def _text(file) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def _peak_bytes(pid: int) -> int:
    with open(f"/proc/{pid}/status") as status:  # noqa: PTH123
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))


if __name__ == "__main__":
    request = json.load(sys.stdin)
    os.chdir(request["folder"])
    print(json.dumps(launch(request["command"], environment=request["environment"], kill_at=request["kill_at"])))
