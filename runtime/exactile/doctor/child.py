"""Run one check in its own process: ``python -m exactile.doctor.child CHECK FILE PARENT ARGUMENTS``.

Progress and findings are written to FILE, a line of JSON each, as soon as they are known: the process may end any
moment.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from exactile.doctor.checks import CHECKS
from exactile.doctor.finding import Telling, of_error

PR_SET_PDEATHSIG = 1


def main(check: str, told: Path, arguments: Mapping[str, Any]) -> None:
    with told.open("a", encoding="utf-8") as file:

        def tell(line: Mapping[str, Any]) -> None:
            file.write(json.dumps(line) + "\n")
            file.flush()

        telling = Telling(tell)
        try:
            module, name = CHECKS[check]
            work: Callable[[Telling, Mapping[str, Any]], None] = getattr(import_module(module), name)
            work(telling, arguments)
        except Exception as error:  # noqa: BLE001  # a report says it; nothing is raised
            telling.found(of_error(arguments["group"], arguments["name"], error))
        tell({"done": True})


def end_with(parent: int) -> None:
    """End this process as soon as ``parent`` ends, for whatever reason (on Linux)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the process that requested this check has ended")


if __name__ == "__main__":
    end_with(int(sys.argv[3]))
    main(sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[4]))
