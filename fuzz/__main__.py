"""``python -m fuzz``: try damaged files by the thousand, and report the outcomes."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

from fuzz.bounds import DEADLINE_S, MOST_BYTES
from fuzz.harness import CHILD_DEADLINE_S, try_all
from fuzz.outcome import Outcome
from fuzz.recipe import KINDS, Recipe
from fuzz.trial import prepare, recipe_of

VERDICTS = ("right", "error", "failure")


def main() -> None:
    """Return exit status 1 if a case failed."""
    options = _options()
    failed = False
    for kind in options.kind or KINDS:
        recipes = [recipe_of(kind, options.seed + index) for index in range(options.cases)]
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            prepare(kind, Path(folder))
            start = time.monotonic()
            outcomes = list(_watched(recipes, Path(folder), options.children))
            failed |= _report(kind, outcomes, time.monotonic() - start)
    sys.exit(int(failed))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m fuzz",
        description="Damaged and hostile input by the thousand: each case must end in a clear error of exactile's or "
        f"in a right result, within {DEADLINE_S:.0f} s and {MOST_BYTES >> 20} MiB; a case whose process dies or is not "
        f"done after {CHILD_DEADLINE_S:.0f} s, is a failure.",
        epilog="To repeat a failure: --kind KIND --seed SEED --cases 1, with the seed that was printed.",
    )
    parser.add_argument("--kind", action="append", choices=KINDS, help="may be given again [default: all]")
    parser.add_argument("--cases", type=int, default=1000, help="cases of each kind [default: 1000]")
    parser.add_argument("--seed", type=int, default=0, help="of the first case, counted up [default: 0]")
    parser.add_argument("--children", type=int, default=2, help="processes at a time [default: 2]")
    return parser.parse_args()


def _watched(recipes: list[Recipe], folder: Path, children: int):
    """Yield the outcomes, printing failures as they come."""
    for recipe, outcome in try_all(recipes, folder, children=children):
        if outcome.verdict == "failure":
            print(f"FAILURE {recipe}\n    {outcome.detail}", flush=True)
        yield recipe, outcome


def _report(kind: str, outcomes: list[tuple[Recipe, Outcome]], seconds: float) -> bool:
    """Print the table of one kind; return whether a case failed."""
    table: dict[str, Counter[str]] = defaultdict(Counter)
    for recipe, outcome in outcomes:
        for mutation in recipe.mutations if len(recipe.mutations) == 1 else ["(two of them)"]:
            table[mutation][outcome.verdict] += 1
    total = Counter(outcome.verdict for _, outcome in outcomes)
    print(f"\n{kind:32}{'cases':>8}{'right':>8}{'error':>8}{'failure':>8}")
    for name, counts in [*sorted(table.items()), ("all", total)]:
        print(f"{name:32}{counts.total():8}" + "".join(f"{counts[verdict]:8}" for verdict in VERDICTS))
    slowest = max((outcome.seconds for _, outcome in outcomes), default=0)
    largest = max((outcome.grown_bytes for _, outcome in outcomes), default=0)
    print(f"{seconds:.0f} s; the longest case {slowest:.1f} s, the largest {largest >> 20} MiB")
    return total["failure"] > 0


if __name__ == "__main__":
    main()
