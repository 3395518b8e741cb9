"""Write the tables that README.md, docs/benchmarks.md and docs/families.md quote, from ``benchmarks/results``.

``python -m benchmarks.quote`` replaces what lies between ``<!-- quoted: NAME -->`` and ``<!-- end of NAME -->``.
``--check`` writes nothing, and exits with 1 if a table differs from the results.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from benchmarks.harness.part import RESULTS
from benchmarks.harness.worker import ROOT

README, PAGE, FAMILIES = ROOT / "README.md", ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "families.md"

CASES = {"16-2048": "16 features", "32-2048": "32", "64-2048": "64", "16-8192": "16, 8192 x 8192"}
"""Results of ``side_by_side``, and what their columns are called."""

FIRST = "16-2048"
"""The case whose memory and labels are quoted."""

SUMMARY = {
    "**exactile, strips**": "exactile, strips",
    "**exactile, tiles**": "exactile, tiles",
    "one whole pass": "one whole pass",
    "the paper's tiles 1024, given the halo": "the paper's tiles 1024, halo 96",
    "MONAI, Gaussian, overlap 0.5": "MONAI, Gaussian, overlap 0.5",
    "MONAI, its default": "MONAI, overlap 0.25 (its default)",
    "naive tiles 512, no halo": "naive tiles 512",
}
"""Rows of the README's table, and what they are called in the results."""

SIDE_BY_SIDE = {
    "naive tiles 512, no halo": "naive tiles 512",
    "one whole pass": "one whole pass",
    "the paper's tiles 512": "the paper's tiles 512, halo 96",
    "the paper's tiles 1024": "the paper's tiles 1024, halo 96",
    "**exactile, strips**": "exactile, strips",
    "**exactile, tiles**": "exactile, tiles",
    "CSBDeep's tiling, given halo and stride": "CSBDeep, tiles of about 1024, halo 96",
    "MONAI, its default": "MONAI, overlap 0.25 (its default)",
    "MONAI, Gaussian, overlap 0.5": "MONAI, Gaussian, overlap 0.5",
    "MONAI with weights made for it": "MONAI, windows 1024, weights 0 in the halo",
    "tiler with weights made for it": "tiler, tiles 1024, weights 0 in the halo",
    "patchly with weights made for it": "patchly, patches 1024, weights 0 in the halo",
    "patchly, Gaussian": "patchly, Gaussian, step 0.5",
    "bioimageio.core, blocks of 1024": "bioimageio.core, blocks 1024, halo 96",
}
"""Rows of the table in docs/benchmarks.md, and what they are called in the results."""

BOUNDED = {
    "image": "image",
    "plan": "plan",
    "tile": "tile",
    "peak MiB": "peak MiB",
    "chunks decoded / stored": "chunks decoded / stored",
    "total time / time the engine is busy": "total / engine busy",
}
"""Columns of the table of runs within a budget, and what they are called in the results."""


def measured(part: str) -> list[dict[str, Any]]:
    """Return rows of the first table of a part, each by the titles of its columns."""
    table = json.loads((RESULTS / f"{part}.json").read_text())["tables"][0]
    titles = [column.partition("|")[0] for column in table["columns"]]
    return [dict(zip(titles, row, strict=True)) for row in table["rows"]]


def _ways(case: str) -> dict[str, dict[str, Any]]:
    return {row["way"]: row for row in measured(f"side_by_side-{case}")}


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|", *(f"| {' | '.join(row)} |" for row in rows)]


def _like(name: str, figures: Sequence[str]) -> list[str]:
    """Return a row; in bold type where its name is."""
    mark = "**" if name.startswith("**") else ""
    return [name, *(f"{mark}{figure}{mark}" if figure else "" for figure in figures)]


def summary() -> list[str]:
    """Return what the README shows of side by side: labels, time, memory."""
    found = _ways(FIRST)
    rows = [
        _like(name, [f"{row['different labels']:,d}", f"{row['time by the floor']:.2f}", f"{row['peak MiB']:.0f}"])
        for name, row in ((name, found[way]) for name, way in SUMMARY.items())
    ]
    return _table(["way", "labels that differ from one pass", "time", "peak MiB"], rows)


def side_by_side() -> list[str]:
    """Return the time of every way in all cases; memory and labels in the first."""
    found = {case: _ways(case) for case in CASES}
    rows = []
    for name, way in SIDE_BY_SIDE.items():
        times = [found[case][way]["time by the floor"] if way in found[case] else None for case in CASES]
        first = found[FIRST][way]
        shown = ["" if time is None else f"{time:.2f}" for time in times]
        rows.append([*_like(name, shown), f"{first['peak MiB']:.0f}", f"{first['different labels']:,d}"])
    return _table(["way", *CASES.values(), "peak MiB (16)", "labels that differ (16)"], rows)


def bounded() -> list[str]:
    """Return large images within a budget."""
    forms = {"peak MiB": ".0f", "total / engine busy": ".3f"}
    rows = [
        [format(row[title], forms.get(title, "")) for title in BOUNDED.values()] for row in measured("scaling-bounded")
    ]
    return _table(list(BOUNDED), rows)


def zoo() -> list[str]:
    """Return verdicts on networks of packages: one row where both exporters lead to the same."""
    rows = []
    for _, group in groupby(measured("zoo"), key=itemgetter("network")):
        both = list(group)
        alike = all(one[title] == both[0][title] for one in both for title in ("verdict", "halo", "cause", "local"))
        rows += [_zoo_row(both, "")] if alike else [_zoo_row([one], f", {one['exporter']}") for one in both]
    return _table(["network", "verdict", "halo", "tiles", "strips", "why not, and what runs show"], rows)


def _zoo_row(found: Sequence[dict[str, Any]], named: str) -> list[str]:
    differences = [[one[way] for one in found if one[way] is not None] for way in ("tiles", "strips")]
    shown = [f"{max(some):.1e}" if some else "" for some in differences]
    why = "; ".join(filter(None, [found[0]["cause"], f"runs: {found[0]['local']}" if found[0]["local"] else ""]))
    return [found[0]["network"] + named, found[0]["verdict"], found[0]["halo"], *shown, why.replace("|", "\\|")]


QUOTES = {
    README: {"summary": summary},
    PAGE: {"side by side": side_by_side, "bounded": bounded},
    FAMILIES: {"zoo": zoo},
}
"""Documents, and the tables in them by name."""


def written(text: str, name: str, lines: Sequence[str]) -> str:
    """Return ``text`` with ``lines`` as the table ``name``. Raises ValueError where its marks are not there once."""
    marks = f"<!-- quoted: {name} -->", f"<!-- end of {name} -->"
    if any(text.count(mark) != 1 for mark in marks):
        raise ValueError(f"the marks {marks[0]} and {marks[1]} must be there once")
    block = "\n".join([marks[0], *lines, marks[1]])
    return re.sub(f"{re.escape(marks[0])}.*?{re.escape(marks[1])}", lambda _: block, text, flags=re.DOTALL)


def quoted(document: Path) -> str:
    """Return the text of ``document`` with the tables as they were measured."""
    text = document.read_text(encoding="utf-8")
    for name, table in QUOTES[document].items():
        text = written(text, name, table())
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a table differs")
    options = parser.parse_args()
    changed = [document for document in QUOTES if quoted(document) != document.read_text(encoding="utf-8")]
    for document in changed:
        print(f"{document.relative_to(ROOT)}: its tables differ from benchmarks/results")
        if not options.check:
            document.write_text(quoted(document), encoding="utf-8")
    raise SystemExit(1 if options.check and changed else 0)


if __name__ == "__main__":
    main()
