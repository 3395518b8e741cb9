"""Does a run stay within ``--memory``? ``python -m benchmarks.memory_matrix [--quick]``

Each combination runs in fresh processes: one with a budget that nothing fits, whose refusal says what would do; then
within that *least* budget, and within 1.5 and 3 times as much. *Peak* is the kernel's own figure (VmHWM) for the whole
process, and must not exceed the *budget*. Every result is compared with that of one whole pass.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from benchmarks.harness.part import run_part
from benchmarks.harness.record import Record, Table
from benchmarks.memory_matrix.cases import AXES, Case, covering
from benchmarks.memory_matrix.inputs import Inputs
from benchmarks.memory_matrix.trial import MeasureError, Outcome, Trials

COLUMNS = (
    "network", "source", "sink", "plan", "option", "chosen", "budget / least|.1f", "budget MiB|.0f",
    "predicted MiB|.0f",
    "peak MiB|.0f", "peak / budget|.2f",
)  # fmt: skip
SUMMARY = (
    "choice",
    "runs",
    "over budget",
    "greatest peak / budget|.2f",
    "least budget / its peak: median|.2f",
    "greatest|.2f",
)
SIDE = (1200, 1300)
LARGE_SIDE = (8000, 9000)
LARGE = (
    Case(network="bundle", source="JPEG tiles", sink="ome.tif", plan="auto", option="pictures"),
    Case(network="ONNX", source="Zarr 2048", sink="zarr", plan="tile", option="none"),
    Case(network="wider bundle", source="npy", sink="tif", plan="strip", option="none"),
)


def measure(options: argparse.Namespace) -> Iterator[Record]:
    chosen = list(covering())
    if options.quick:
        chosen = chosen[::6]
    if options.only:
        chosen = [case for case in chosen if all(word in str(case) for word in options.only)]
    outcomes, failures, left_out = [], [], 0
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        sizes = [(tuple(options.size), chosen)]
        if options.large:
            sizes.append((LARGE_SIDE, LARGE))
        for number, ((height, width), cases) in enumerate(sizes):
            folders = [Path(place) / f"{kind}{number}" for kind in ("inputs", "results")]
            for folder in folders:
                folder.mkdir()
            trials = Trials(inputs=Inputs(folder=folders[0], height=height, width=width), folder=folders[1])
            for case in cases:
                if time.monotonic() - begin > options.minutes * 60:
                    left_out += 1
                    continue
                try:
                    for outcome in trials.run(case):
                        outcomes.append(outcome)
                        tell(outcome)
                except MeasureError as error:
                    failures.append(str(error))
                    print(f"FAILED {error}", file=sys.stderr)
    yield record(outcomes, failures, left_out)


def tell(outcome: Outcome) -> None:
    case = outcome.case
    words = f"{case.network}, {case.source}, {case.sink}, {case.plan}, {case.option} ({outcome.plan})"
    figures = (
        f"budget {outcome.budget_mib:.1f}, predicted {outcome.predicted_mib or 0:.1f}, peak {outcome.peak_mib:.1f}"
    )
    over = "OVER " if outcome.over else ""
    print(f"{time.strftime('%H:%M:%S')} {over}{words}: {figures}", file=sys.stderr)


def record(outcomes: list[Outcome], failures: list[str], left_out: int) -> Record:
    table = Table(title="Every run", columns=COLUMNS)
    for one in outcomes:
        case = one.case
        table.add(
            case.network, case.source, case.sink, case.plan, case.option, one.plan, one.times, one.budget_mib,
            one.predicted_mib, one.peak_mib, one.peak_mib / one.budget_mib,
        )  # fmt: skip
    over = sum(one.over for one in outcomes)
    plans = ", ".join(f"{name} {count}" for name, count in Counter(one.plan.split()[0] for one in outcomes).items())
    least = [one.budget_mib / one.peak_mib for one in outcomes if one.times == 1]
    remarks = (
        f"{len(outcomes)} runs of {len({one.case for one in outcomes})} combinations, {over} beyond the budget. "
        f"The least budget that is accepted is {median(least):.2f} (median) to {max(least):.2f} times the peak of the "
        f"run within it. Plans: {plans}."
    )
    if left_out:
        remarks += f" There was no time for {left_out} combinations."
    if failures:
        remarks += "\n\nFailed:\n\n" + "\n".join(f"- {failure}" for failure in failures)
    return Record(
        part="memory_matrix", title="Memory within the budget", tables=[summary(outcomes), table], remarks=remarks
    )


def summary(outcomes: list[Outcome]) -> Table:
    """By choice of each axis."""
    table = Table(title="By choice", columns=SUMMARY)
    for axis, choices in AXES.items():
        for choice in choices:
            found = [one for one in outcomes if getattr(one.case, axis) == choice]
            if not found:
                continue
            least = [one.budget_mib / one.peak_mib for one in found if one.times == 1]
            table.add(
                f"{axis}: {choice}",
                len(found),
                sum(one.over for one in found),
                max(one.peak_mib / one.budget_mib for one in found),
                median(least),
                max(least),
            )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60, help="no combination is begun later than that")
    parser.add_argument("--size", nargs=2, type=int, default=SIDE)
    parser.add_argument("--large", action="store_true", help="some combinations of 8000 x 9000 pixels, too")
    parser.add_argument("--only", nargs="+", metavar="WORD", help="combinations that hold these words")
    run_part(measure, parser)


if __name__ == "__main__":
    main()
