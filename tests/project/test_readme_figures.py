"""The README quotes what was measured: its side by side is that of ``benchmarks/results``."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.folders import ROOT

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
    "patchly, Gaussian": "patchly, Gaussian, step 0.5",
    "bioimageio.core, blocks of 1024": "bioimageio.core, blocks 1024, halo 96",
}
"""As the README calls them, and as the results do."""


def measured(case: str) -> dict[str, dict[str, Any]]:
    """What was measured of each way, by column."""
    table = json.loads((ROOT / "benchmarks" / "results" / f"side_by_side-{case}.json").read_text())["tables"][0]
    titles = [column.partition("|")[0] for column in table["columns"]]
    return {row[0]: dict(zip(titles, row, strict=True)) for row in table["rows"]}


def quoted() -> dict[str, list[str]]:
    """The rows of the README's table."""
    lines = (ROOT / "README.md").read_text().splitlines()
    rows = ([cell.strip(" *") for cell in line.strip("|").split("|")] for line in lines if line.startswith("| "))
    return {row[0]: row[1:] for row in rows if row[0] in WAYS}


@pytest.mark.parametrize("way", WAYS)
def test_the_readme_quotes_the_tables(way: str) -> None:
    *ratios, peak_mib, labels = quoted()[way]
    found = [measured(case).get(WAYS[way]) for case in CASES]
    by_floor = ["" if one is None else f"{one['time by the floor']:.2f}" for one in found]
    assert [text.strip("-") for text in ratios] == by_floor
    first = found[0]
    assert first is not None
    assert peak_mib == f"{first['peak MiB']:.0f}"
    assert labels.split(", nearly")[0] == f"{first['different labels']:,d}"
