"""The check of terms finds what docs/style.md says to avoid, and this repository is free of it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "tools" / "check_terms.py"


@pytest.fixture(scope="module")
def check():
    spec = importlib.util.spec_from_file_location("check_terms", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def terms(check):
    return check.read_terms(check.STYLE.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "line",
    [
        "A run that is gone on with.",
        "for who wants to cancel it",
        "Loads that are under way on each device.",
        "the next smaller plan is taken",
        "This lets pixels be as they are.",
    ],
)
def test_phrases_are_found(check, terms, line):
    """One place each, with what to write."""
    found = list(check.found_in(f"Fine.\n{line}\n", terms))
    assert [number for number, _, _ in found] == [2]
    assert found[0][2]


def test_plain_sentences_pass(check, terms):
    """And a line that says that it is meant."""
    text = "The run resumes.\nA callback reports progress.\nThe next smaller plan  # terms: ok\n"
    assert list(check.found_in(text, terms)) == []


def test_a_document_without_the_table_is_an_error(check):
    """An empty list would find nothing for ever."""
    with pytest.raises(ValueError, match="no table"):
        check.read_terms("# Style\n")


def test_this_repository_is_free_of_them(check):
    """As ``make check`` looks at it; files are there to be looked at."""
    assert len(check.checked_files()) >= 5
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("", 0)
