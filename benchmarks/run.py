"""``make bench`` and ``make bench-full``: run the parts one after the other, each in its own process.

``python -m benchmarks.run [--full] [--only PART ...] [--resume] [--list]``. Each part writes JSON and Markdown as soon
as it has measured: an interrupted run loses only its current part, and ``--resume`` skips those that were measured at
this commit. Tables are in ``benchmarks/results`` (``quick`` ones in a folder below).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass

from benchmarks.harness.part import RESULTS
from benchmarks.harness.record import revision
from benchmarks.harness.worker import ROOT


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """``minutes`` are those of 2 quiet cores of an AMD EPYC, quick ones and full ones; None: not in that run."""

    module: str
    arguments: tuple[str, ...] = ()
    quick_minutes: float | None
    full_minutes: float | None

    @property
    def name(self) -> str:
        """As its results are named."""
        return "-".join([self.module, *self.arguments[1:]])


PARTS = (
    Part(module="side_by_side", arguments=("--case", "16-2048"), quick_minutes=4, full_minutes=11),
    Part(module="side_by_side", arguments=("--case", "32-2048"), quick_minutes=None, full_minutes=4),
    Part(module="side_by_side", arguments=("--case", "64-2048"), quick_minutes=None, full_minutes=6.5),
    Part(module="side_by_side", arguments=("--case", "16-8192"), quick_minutes=None, full_minutes=11),
    Part(module="scaling", arguments=("--step", "size"), quick_minutes=1, full_minutes=5),
    Part(module="scaling", arguments=("--step", "halo"), quick_minutes=0.5, full_minutes=3),
    Part(module="scaling", arguments=("--step", "threads"), quick_minutes=0.5, full_minutes=2),
    Part(module="scaling", arguments=("--step", "bounded"), quick_minutes=0.5, full_minutes=1),
    Part(module="scaling", arguments=("--step", "free"), quick_minutes=0.5, full_minutes=1),
    Part(module="scaling", arguments=("--step", "many-cores"), quick_minutes=0.7, full_minutes=4),
    Part(module="files", quick_minutes=1, full_minutes=2.5),
    Part(module="startup", quick_minutes=1.5, full_minutes=3.5),
    Part(module="start", arguments=("--case", "16"), quick_minutes=0.5, full_minutes=2),
    Part(module="many_images", quick_minutes=0.5, full_minutes=4.5),
    Part(module="engines", quick_minutes=0.5, full_minutes=3.5),
    Part(module="strip_floor", quick_minutes=0.5, full_minutes=2.5),
    Part(module="carry_placement", quick_minutes=0.3, full_minutes=2.5),
    Part(module="strip_rounding", quick_minutes=0.5, full_minutes=1.5),
    Part(module="memory_model", quick_minutes=0.5, full_minutes=1),
    Part(module="claim_check", quick_minutes=0.2, full_minutes=1),
    Part(module="placed_resize", quick_minutes=0.2, full_minutes=1.5),
    Part(module="precision", quick_minutes=0.3, full_minutes=1.5),
    Part(module="exactness", quick_minutes=0.3, full_minutes=0.5),
    Part(module="memory_matrix", quick_minutes=3, full_minutes=18),
)


def chosen_parts(options: argparse.Namespace) -> list[tuple[Part, float]]:
    found = []
    for part in PARTS:
        minutes = part.full_minutes if options.full else part.quick_minutes
        wanted = options.only is None or part.name in options.only or part.module in options.only
        if minutes is not None and wanted:
            found.append((part, minutes))
    return found


def is_measured(part: Part, *, full: bool) -> bool:
    """Return whether there are results of this very commit."""
    path = (RESULTS if full else RESULTS / "quick") / f"{part.name}.json"
    return path.is_file() and json.loads(path.read_text())["revision"] == revision()


def run(part: Part, *, full: bool) -> bool:
    command = [sys.executable, "-m", f"benchmarks.{part.module}", *part.arguments, *([] if full else ["--quick"])]
    done = subprocess.run(command, cwd=ROOT, check=False, stdout=subprocess.PIPE, text=True)
    print(done.stdout, flush=True)
    return done.returncode == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="an hour and a half; what the documents quote")
    parser.add_argument("--only", nargs="+", metavar="PART", help="these parts, or all of a module")
    parser.add_argument("--resume", action="store_true", help="leave out what was measured at this commit")
    parser.add_argument("--list", action="store_true", help="show parts and minutes")
    options = parser.parse_args()
    parts = chosen_parts(options)
    print(f"{len(parts)} parts, about {sum(minutes for _, minutes in parts):.0f} minutes", file=sys.stderr)
    failed = []
    for number, (part, minutes) in enumerate(parts, start=1):
        print(f"== {number} of {len(parts)}: {part.name}, about {minutes:g} minutes", file=sys.stderr, flush=True)
        if options.list or (options.resume and is_measured(part, full=options.full)):
            continue
        begin = time.monotonic()
        if not run(part, full=options.full):
            failed.append(part.name)
        print(f"   took {(time.monotonic() - begin) / 60:.1f} minutes", file=sys.stderr)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
