"""Networks of other people's packages: judged as docs/families.md says, and tiles and strips equal one pass."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest

from benchmarks.zoo.apart import Apart
from benchmarks.zoo.judged import EXPORTERS
from benchmarks.zoo.networks import ZOO
from exactile_converters.torch_export import Exporter
from tests.support.folders import ROOT

MOST = 1e-4
"""Largest difference from one pass, relative to its largest value: re-association, with instance normalisation."""


def recorded() -> dict[tuple[str, str], dict[str, Any]]:
    table = json.loads((ROOT / "benchmarks" / "results" / "zoo.json").read_text())["tables"][0]
    titles = [column.partition("|")[0] for column in table["columns"]]
    rows = [dict(zip(titles, row, strict=True)) for row in table["rows"]]
    return {(row["network"], row["exporter"]): row for row in rows}


@pytest.fixture(scope="module")
def apart() -> Iterator[Apart]:
    with Apart() as made:
        yield made


def check(apart: Apart, name: str, exporter: Exporter, folder: Path) -> None:
    try:
        found = apart.judged(name, exporter, folder)
    except ImportError as error:
        pytest.skip(f"{error}: make test-all installs it")
    row = recorded()[name, exporter]
    assert (found.verdict, found.halo, found.cause) == (row["verdict"], row["halo"], row["cause"])
    for difference, before in ((found.tiles, row["tiles"]), (found.strips, row["strips"])):
        assert (difference is None) == (before is None)
        assert difference is None or difference <= MOST


def test_every_network_is_in_the_table():
    assert set(recorded()) == {(member.name, exporter) for member in ZOO for exporter in EXPORTERS}


def test_after_a_crash_there_is_another_process():
    with Apart() as apart:
        with pytest.raises(BrokenProcessPool):
            apart.run(os.abort)
        assert apart.run(int, "3") == 3


def test_what_is_called_tileable_was_run_and_equals_one_pass():
    for row in recorded().values():
        if row["verdict"] == "tiles" or row["verdict"].endswith("passes"):
            assert row["tiles"] is not None, row
        for way in ("tiles", "strips"):
            assert row[way] is None or row[way] <= MOST, row


@pytest.mark.slow
@pytest.mark.parametrize(("name", "exporter"), sorted(recorded()))
def test_the_verdict_is_that_of_the_table(apart, tmp_path, name, exporter):
    """And tiles and strips equal one pass."""
    check(apart, name, exporter, tmp_path)
