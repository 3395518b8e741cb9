"""Where the version is written, it is the same."""

from __future__ import annotations

import re

import yaml

import exactile
from tests.support.folders import ROOT


def test_the_citation_names_this_version():
    """CITATION.cff, read as YAML."""
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == exactile.__version__
    assert cited["cff-version"] == "1.2.0"


def test_the_changelog_has_this_version_on_top():
    """As the first heading, or below one of changes that are not released."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = [heading for heading in re.findall(r"^## (.+)$", text, re.MULTILINE) if heading != "Unreleased"]
    assert headings[0].split()[0] == exactile.__version__
