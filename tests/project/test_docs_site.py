"""The documentation site: its links and headings, its navigation, its API reference. ``make docs`` builds it."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
from collections.abc import Iterator
from posixpath import dirname, join, normpath

import pytest
import yaml

from exactile.passes import statistics_file
from exactile.sinks.files import found_file
from exactile.sinks.resume import journal
from tests.support.folders import ROOT

NAVIGATION = ROOT / "mkdocs.yml"


@pytest.fixture(scope="module")
def site():
    spec = importlib.util.spec_from_file_location("docs_site", ROOT / "tools" / "docs_site.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Plain(yaml.SafeLoader):
    """Reads mkdocs.yml without what it names in Python."""


Plain.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)


def navigation(entry: object) -> Iterator[str]:
    """The pages of a part of ``nav``."""
    if isinstance(entry, str):
        yield entry
    else:
        for part in entry.values() if isinstance(entry, dict) else entry:
            yield from navigation(part)


def text_of(page: str) -> str:
    """Without code, in which links and headings are none."""
    return re.sub(r"^```.*?^```$", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(page: str) -> set[str]:
    """Those that GitHub gives to headings."""
    titles = re.findall(r"^#+ (.+?) *$", text_of(page), re.MULTILINE)
    words = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).lower() for title in titles]
    return {re.sub(r"[^\w\- ]", "", word).replace(" ", "-") for word in words}


def test_every_link_leads_to_a_file_and_a_heading(site):
    """In all pages of the site; links to other hosts are left out."""
    files, _ = site.collect()
    pages = sorted(name for name in files if name.endswith(".md"))
    assert {"README.md", "docs/usage.md", "ARCHITECTURE.md", "benchmarks/results/cluster.md"} <= set(pages)
    broken = []
    for page in pages:
        for path, anchor in re.findall(r"\]\(([^)\s#:]*)(#[^)\s]*)?\)", re.sub(r"`[^`\n]*`", "", text_of(page))):
            target = normpath(join(dirname(page), path)) if path else page
            if not (ROOT / target).exists() or (anchor and anchor[1:] not in anchors(target)):
                broken.append((page, path + anchor))
    assert broken == []


def test_the_site_holds_what_is_linked_to_and_nothing_else(site, tmp_path):
    """Directly or through a page; of a folder all pages; not what code only mentions."""
    (tmp_path / "docs" / "deep").mkdir(parents=True)
    (tmp_path / "results").mkdir()
    (tmp_path / "README.md").write_text("[a](docs/a.md#b), [b](https://host/b.md), `[c](secret.md)`\n")
    (tmp_path / "docs" / "a.md").write_text("[r](../results), [gone](gone.md)\n```\n[c](../secret.md)\n```\n")
    (tmp_path / "docs" / "deep" / "b.md").write_text("[code](../../code.py)\n")
    (tmp_path / "results" / "one.md").write_text("# One\n![plot](one.png)\n")
    for name in ("results/one.png", "results/one.json", "code.py", "secret.md", "other.py"):
        (tmp_path / name).touch()
    files, folders = site.collect(tmp_path)
    assert files == {"README.md", "docs/a.md", "docs/deep/b.md", "results/one.md", "results/one.png", "code.py"}
    assert folders == {"results"}
    assert site.listing("results", tmp_path).splitlines()[2] == "- [One](one.md) (`one`)"


def test_the_navigation_has_every_page_of_docs():
    """And names nothing that does not exist, but the list that the build makes."""
    named = list(navigation(yaml.load(NAVIGATION.read_text(encoding="utf-8"), Loader=Plain)["nav"]))
    written = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert len(set(named)) == len(named)
    assert written - set(named) == set()
    assert [name for name in named if not (ROOT / name).is_file()] == ["benchmarks/results/index.md"]


MODULES = ["exactile", "exactile.distributed", "exactile_converters.convert", "exactile_converters.deploy"]
EXTENDING = ["exactile.errors", "exactile.geometry", "exactile.sources.protocol", "exactile.sinks.protocol"]
"""What sources, sinks and callers use beside."""


@pytest.mark.parametrize("module", MODULES)
def test_the_reference_has_every_public_name(module):
    """Each under the module from which it is imported; names of two modules stand there once."""
    pages = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "api").glob("*.md"))
    shown = set(re.findall(r"^::: (\S+)$", pages, re.MULTILINE))
    public = importlib.import_module(module)
    elsewhere = {vars(importlib.import_module(name.rpartition(".")[0])).get(name.rpartition(".")[2]) for name in shown}
    missing = [
        name
        for name in public.__all__
        if f"{module}.{name}" not in shown and getattr(public, name) not in elsewhere and name != "ExactileError"
    ]
    assert missing == []
    assert "exactile.errors" in shown
    for name in shown:
        holder, _, last = name.rpartition(".")
        assert hasattr(importlib.import_module(holder), last), name


def members(one: object) -> Iterator[tuple[str, object]]:
    """Public methods and properties that a class defines itself."""
    for name, member in vars(one).items() if inspect.isclass(one) else ():
        plain = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
        if not name.startswith("_") and inspect.isfunction(plain):
            yield name, plain


@pytest.mark.parametrize("module", [*MODULES, *EXTENDING])
def test_every_public_name_has_a_docstring(module):
    """And every public method and property of a public class."""
    public = importlib.import_module(module)
    names = [
        name
        for name, value in vars(public).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module
    ]
    missing = []
    for name in getattr(public, "__all__", names):
        one = getattr(public, name)
        documented = inspect.isclass(one) or inspect.isfunction(one)
        made = f"{name}("  # what dataclasses write
        if documented and (not one.__doc__ or one.__doc__.startswith(made)):
            missing.append(name)
        missing += [f"{name}.{member}" for member, plain in members(one) if not plain.__doc__]
    assert missing == []


def test_the_formats_are_those_of_the_code():
    """Heads, records and first lines of the files that a run keeps; members of fixed statistics."""
    page = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    for packed in (journal._HEAD, journal._TILE, journal._PART, journal._BOX, found_file._HEAD):
        assert f"`{packed.format}`" in page
    for first in (journal._MAGIC, found_file._MAGIC):
        assert f"`{first.decode().strip()}`" in page
    for kind in journal.Kind:
        assert f"| {kind.value} | {kind.name} | " in page
    for member in statistics_file.StatisticsFile.__struct_fields__:
        assert f"`{member}`" in page
