"""``python -m benchmarks.gpu_kit build | receive PART... | step-a | step-b | step-c | collect FOLDER``.

README.md, beside this file, says when to call which.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from pathlib import Path

from benchmarks.gpu_kit import installed
from benchmarks.gpu_kit.harness import run_step
from benchmarks.gpu_kit.parts import DamagedPartError

MINUTES = {"step-a": 2.5, "step-b": 3.5, "step-c": 3.5}


def main() -> int:
    options = _parser().parse_args()
    if options.command == "build":
        return _build(options.folder)
    if options.command == "receive":
        return _receive(options.parts)
    if options.command == "collect":
        from benchmarks.gpu_kit.collect import collect

        print("\n".join(map(str, collect(options.folder))))
        return 0
    return _step(options.command, options.results, options.minutes)


def _build(folder: Path | None) -> int:
    from benchmarks.gpu_kit.build import FOLDER, build
    from benchmarks.gpu_kit.wheels import MissingToolError

    try:
        build(folder or FOLDER)
    except MissingToolError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _receive(parts: list[Path]) -> int:
    begin = time.monotonic()
    try:
        for part in parts:
            print(installed.receive(part), flush=True)
    except (DamagedPartError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{time.monotonic() - begin:.1f} s")
    return 0


def _step(step: str, results: Path, minutes: float) -> int:
    """Run a step; exit with 1 if a check did not pass. All of them are tried."""
    installed.use()
    from benchmarks.gpu_kit.machine import describe

    module = importlib.import_module(f"benchmarks.gpu_kit.{step.replace('-', '_')}")
    machine = {**describe(), "kit": installed.kit()}
    folder = installed.HOME / installed.SCRATCH
    record = run_step(step, module.checks(), results=results, folder=folder, minutes=minutes, machine=machine)
    print((results / f"{step}.md").read_text(), flush=True)
    return 0 if all(entry["outcome"] == "passed" for entry in record["checks"]) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_kit", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="write the kit")
    build.add_argument("--folder", type=Path, default=None)
    receive = commands.add_parser("receive", help="unpack parts on the machine that they were brought to")
    receive.add_argument("parts", type=Path, nargs="+", metavar="PART")
    for step, minutes in MINUTES.items():
        command = commands.add_parser(step, help=f"run its checks, within {minutes} minutes")
        command.add_argument("--results", type=Path, required=True, metavar="DIR", help="for JSON, Markdown and traces")
        command.add_argument("--minutes", type=float, default=minutes)
    collect = commands.add_parser("collect", help="write benchmarks/results/gpu-* from what steps brought back")
    collect.add_argument("folder", type=Path)
    return parser


if __name__ == "__main__":
    sys.exit(main())
