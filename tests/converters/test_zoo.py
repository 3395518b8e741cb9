"""Networks of other people's packages: judged as docs/families.md says, and tiles and strips equal one pass."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.zoo.judged import EXPORTERS, judged
from benchmarks.zoo.networks import BY_NAME, ZOO
from tests.support.folders import ROOT

MOST = 1e-4
"""Largest difference from one pass, relative to its largest value: re-association, with instance normalisation."""


def recorded() -> dict[tuple[str, str], dict[str, Any]]:
    table = json.loads((ROOT / "benchmarks" / "results" / "zoo.json").read_text())["tables"][0]
    titles = [column.partition("|")[0] for column in table["columns"]]
    rows = [dict(zip(titles, row, strict=True)) for row in table["rows"]]
    return {(row["network"], row["exporter"]): row for row in rows}


def check(name: str, exporter: str, folder: Path) -> None:
    try:
        found = judged(BY_NAME[name], exporter, folder)
    except ImportError as error:
        pytest.skip(f"{error}: make test-all installs it")
    row = recorded()[name, exporter]
    assert (found.verdict, found.halo, found.cause) == (row["verdict"], row["halo"], row["cause"])
    for difference, before in ((found.tiles, row["tiles"]), (found.strips, row["strips"])):
        assert (difference is None) == (before is None)
        assert difference is None or difference <= MOST


def test_every_network_is_in_the_table():
    """By TorchScript; by dynamo, those that were judged."""
    everything = {(member.name, exporter) for member in ZOO for exporter in EXPORTERS}
    assert set(recorded()) <= everything
    assert {name for name, exporter in recorded() if exporter == "torchscript"} == {member.name for member in ZOO}


def test_what_is_called_tileable_was_run_and_equals_one_pass():
    for row in recorded().values():
        if row["verdict"] == "tiles" or row["verdict"].endswith("passes"):
            assert row["tiles"] is not None, row
        for way in ("tiles", "strips"):
            assert row[way] is None or row[way] <= MOST, row


@pytest.mark.slow
@pytest.mark.parametrize(("name", "exporter"), sorted(recorded()))
def test_the_verdict_is_that_of_the_table(tmp_path, name, exporter):
    """And tiles and strips equal one pass."""
    check(name, exporter, tmp_path)
