"""README.md and docs/benchmarks.md quote what was measured: their tables are those of ``benchmarks/results``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import quote
from tests.support.folders import ROOT

README, PAGE = ROOT / "README.md", ROOT / "docs" / "benchmarks.md"
CASES = ("16-2048", "32-2048", "64-2048", "16-8192")
WAYS = {
    "naive tiles 512, no halo": "naive tiles 512",
    "one whole pass": "one whole pass",
    "the paper's tiles 512": "the paper's tiles 512, halo 96",
    "the paper's tiles 1024": "the paper's tiles 1024, halo 96",
    "exactile, strips": "exactile, strips",
    "exactile, tiles": "exactile, tiles",
    "CSBDeep's tiling, given halo and stride": "CSBDeep, tiles of about 1024, halo 96",
    "MONAI, its default": "MONAI, overlap 0.25 (its default)",
    "MONAI, Gaussian, overlap 0.5": "MONAI, Gaussian, overlap 0.5",
    "MONAI with weights made for it": "MONAI, windows 1024, weights 0 in the halo",
    "tiler with weights made for it": "tiler, tiles 1024, weights 0 in the halo",
    "patchly with weights made for it": "patchly, patches 1024, weights 0 in the halo",
    "patchly, Gaussian": "patchly, Gaussian, step 0.5",
    "bioimageio.core, blocks of 1024": "bioimageio.core, blocks 1024, halo 96",
}
"""As the documents call them, and as the results do."""

IN_README = {
    "exactile, strips": "exactile, strips",
    "exactile, tiles": "exactile, tiles",
    "one whole pass": "one whole pass",
    "the paper's tiles 1024, given the halo": "the paper's tiles 1024, halo 96",
    "MONAI, Gaussian, overlap 0.5": "MONAI, Gaussian, overlap 0.5",
    "MONAI, its default": "MONAI, overlap 0.25 (its default)",
    "naive tiles 512, no halo": "naive tiles 512",
}


def measured(part: str) -> list[dict[str, Any]]:
    """Rows of the first table of a part, by column."""
    table = json.loads((ROOT / "benchmarks" / "results" / f"{part}.json").read_text())["tables"][0]
    titles = [column.partition("|")[0] for column in table["columns"]]
    return [dict(zip(titles, row, strict=True)) for row in table["rows"]]


def side_by_side(case: str) -> dict[str, dict[str, Any]]:
    """What was measured of each way."""
    return {row["way"]: row for row in measured(f"side_by_side-{case}")}


def quoted(document: Path, names: list[str]) -> dict[str, list[str]]:
    """Rows of a document's table whose first cell is one of ``names``."""
    lines = document.read_text(encoding="utf-8").splitlines()
    rows = ([cell.strip(" *") for cell in line.strip("|").split("|")] for line in lines if line.startswith("| "))
    return {row[0]: row[1:] for row in rows if row[0] in names}


@pytest.mark.parametrize("way", WAYS)
def test_the_page_quotes_the_tables(way: str) -> None:
    """Time in every case, memory and labels in the first."""
    *ratios, peak_mib, labels = quoted(PAGE, list(WAYS))[way]
    found = [side_by_side(case).get(WAYS[way]) for case in CASES]
    assert ratios == ["" if one is None else f"{one['time by the floor']:.2f}" for one in found]
    first = found[0]
    assert first is not None
    assert peak_mib == f"{first['peak MiB']:.0f}"
    assert labels == f"{first['different labels']:,d}"


@pytest.mark.parametrize("way", IN_README)
def test_the_readme_quotes_the_tables(way: str) -> None:
    """Labels, time and memory in the first case."""
    found = side_by_side(CASES[0])[IN_README[way]]
    labels, ratio, peak_mib = quoted(README, list(IN_README))[way]
    assert labels == f"{found['different labels']:,d}"
    assert ratio == f"{found['time by the floor']:.2f}"
    assert peak_mib == f"{found['peak MiB']:.0f}"


def test_the_page_quotes_memory_within_a_budget() -> None:
    """Plan, tile, peak, chunks and waiting of each run, in order."""
    lines = PAGE.read_text(encoding="utf-8").partition("<!-- quoted: bounded -->")[2].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[3:6]]
    assert rows == [
        [
            row["image"],
            row["plan"],
            row["tile"],
            f"{row['peak MiB']:.0f}",
            row["chunks decoded / stored"],
            f"{row['total / engine busy']:.3f}",
        ]
        for row in measured("scaling-bounded")
    ]


@pytest.mark.parametrize("document", quote.QUOTES, ids=lambda path: path.name)
def test_writing_the_tables_anew_changes_nothing(document: Path) -> None:
    """What ``python -m benchmarks.quote`` would write is there."""
    assert quote.quoted(document) == document.read_text(encoding="utf-8")


def test_figures_that_differ_are_replaced() -> None:
    """Between its marks, and nowhere else."""
    text = "before\n<!-- quoted: a -->\n| old |\n<!-- end of a -->\nafter | old |\n"
    assert quote.written(text, "a", ["| new |"]) == text.replace("| old |\n<!--", "| new |\n<!--")


def test_a_table_without_marks_is_an_error() -> None:
    """No figure is left as it was without a word."""
    with pytest.raises(ValueError, match="must be there once"):
        quote.written("no marks", "a", [])
