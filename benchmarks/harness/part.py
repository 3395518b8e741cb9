"""The command line of one part: ``python -m benchmarks.<part> [--quick]``."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks.harness.record import Record
from benchmarks.harness.worker import compile_packages

RESULTS = Path(__file__).parents[1] / "results"
HARMLESS = {"quick", "case", "part", "step", "peers", "directory", "json"}
"""Options that choose what is measured, or where; any other makes a trial."""


def run_part(measure: Callable[[argparse.Namespace], Iterable[Record]], parser: argparse.ArgumentParser) -> None:
    """Add the options that all parts have; save and print each record as it comes.

    Results that documents quote are never overwritten by those of a quick run or of a trial with other options.
    """
    parser.add_argument("--json", type=Path, metavar="FILE", help="a copy of what was found, as JSON")
    parser.add_argument("--quick", action="store_true", help="less of it; results go to benchmarks/results/quick")
    options = parser.parse_args()
    compile_packages()
    for record in measure(options):
        arguments = [record.arguments, "--quick" if options.quick else "", *_others(options, parser)]
        record.arguments = " ".join(filter(None, arguments))
        table = record.save(_folder(options, parser))
        if options.json is not None:
            shutil.copyfile(table.with_suffix(".json"), options.json)
        print(table.read_text(), flush=True)


def _others(options: argparse.Namespace, parser: argparse.ArgumentParser) -> list[str]:
    """Return options given that make a trial, as they are typed."""
    return [
        f"--{name.replace('_', '-')}{_typed(value)}"
        for name, value in vars(options).items()
        if name not in HARMLESS and value != parser.get_default(name)
    ]


def _typed(value: object) -> str:
    """Return what follows the option's name: nothing for a flag."""
    if value is True:
        return ""
    return f" {' '.join(map(str, value)) if isinstance(value, list) else value}"


def _folder(options: argparse.Namespace, parser: argparse.ArgumentParser) -> Path:
    if _others(options, parser):
        return RESULTS / "trial"
    return RESULTS / "quick" if options.quick else RESULTS
