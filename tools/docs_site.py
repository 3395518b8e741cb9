"""Collect the files of the documentation site: a hook of MkDocs, see mkdocs.yml.

The site holds README.md, the folder docs, and every file of the repository that these link to, directly or through
other pages. Each has its path in the repository, so that a link is the same on the site and in the repository. A link
to a folder leads to a list of the pages in it. Links that lead nowhere are left for MkDocs to report.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from posixpath import dirname, join, normpath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
FIRST = ("README.md", "docs")
LIST = "index.md"
_CODE = re.compile(r"^ *```.*?^ *```$|`[^`\n]*`", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\((?P<path>[^)\s#:]+)(?P<anchor>#[^)\s]*)?\)")


def linked(page: str, text: str) -> Iterator[str]:
    """Yield the paths, from the root of the repository, that the Markdown ``text`` of ``page`` links to."""
    for link in _LINK.finditer(_CODE.sub("", text)):
        yield normpath(join(dirname(page), link["path"]))


def collect(root: Path = ROOT) -> tuple[set[str], set[str]]:
    """Return the files of the site, and the folders that are linked to, as paths from ``root``."""
    files: set[str] = set()
    folders: set[str] = set()
    waiting = [name for name in FIRST if (root / name).is_file()]
    waiting += [_name(path, root) for first in FIRST for path in (root / first).rglob("*") if path.is_file()]
    while waiting:
        name = waiting.pop()
        path = root / name
        if name in files or name in folders or name.startswith(".."):
            continue
        if path.is_dir():
            folders.add(name)
            waiting += [_name(page, root) for page in path.glob("*.md")]
        elif path.is_file():
            files.add(name)
            if path.suffix == ".md":
                waiting += linked(name, path.read_text(encoding="utf-8"))
    return files, folders


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def listing(folder: str, root: Path = ROOT) -> str:
    """Return a page, in Markdown, that lists the pages of ``folder`` by their titles."""
    pages = sorted((root / folder).glob("*.md"))
    titles = [page.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ") for page in pages]
    lines = [f"- [{title}]({page.name}) (`{page.stem}`)" for title, page in zip(titles, pages, strict=True)]
    return "\n".join([f"# `{folder}`", "", *lines, ""])


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Replace the files of the folder docs by those of the site."""
    from mkdocs.structure.files import File

    for file in list(files):
        if file.src_dir == config.docs_dir:
            files.remove(file)
    found, folders = collect()
    for name in sorted(found):
        files.append(File(name, str(ROOT), config.site_dir, config.use_directory_urls))
    for folder in sorted(folders):
        files.append(File.generated(config, f"{folder}/{LIST}", content=listing(folder)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 -- MkDocs
    """Lead links to folders to the lists of their pages."""

    def led(link: re.Match[str]) -> str:
        folder = normpath(join(dirname(page.file.src_uri), link["path"]))
        listed = files.get_file_from_path(f"{folder}/{LIST}") is not None
        return f"]({link['path'].rstrip('/')}/{LIST})" if listed else link[0]

    return _LINK.sub(led, markdown)


def on_page_content(html: str, **_: object) -> str:
    """Remove the marks before literal blocks of docstrings, which Markdown does not know."""
    return html.replace("<p>::</p>\n", "")
