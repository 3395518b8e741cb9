"""Run once by ``tests.support.command``: every line on stdin is a command line, for which a process is forked.

It is a process of its own, with its own exit status, but what it imports, most of what a short command takes, is there.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import sys
from importlib import import_module

IMPORTED = [
    *["exactile.cli.main", *(f"exactile.cli.{name}" for name in ("run_many", "inspect_text", "verdict"))],
    *["onnxruntime", "tifffile", "imagecodecs", "exactile.bundle.opening", "exactile.request.onnx_models"],
    *["exactile_converters.convert", "exactile_converters.inspection", "exactile_converters.verify"],
]


def main() -> None:
    from exactile.cli.commands import NAMES

    for name in [*IMPORTED, *(f"exactile.cli.{name}" for name in NAMES)]:
        import_module(name)
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        request = json.loads(line)
        process = os.fork()
        if process == 0:
            become(**request)
            return
        _, status = os.waitpid(process, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201


def become(*, arguments: list[str], folder: str, environment: dict[str, str], stdout: str, stderr: str) -> None:
    """Be ``python -m exactile``; ``stdout`` and ``stderr`` are files."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for descriptor, path, flags in ((0, os.devnull, os.O_RDONLY), (1, stdout, os.O_WRONLY), (2, stderr, os.O_WRONLY)):
        opened = os.open(path, flags)
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.argv = ["exactile", *arguments]
    runpy.run_module("exactile", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
