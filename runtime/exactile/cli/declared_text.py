"""Print what a model's file declares in addition to its network, for ``exactile inspect``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def declared_rows(declared: Any) -> Iterator[tuple[str, str]]:
    """Yield title and text of each row; ``declared`` is the converter's ``DeclaredTold``."""
    output = f"; output: {declared.output}" if declared.output is not None else ""
    yield "declared", f"{declared.source}{output}"
    yield "samples", declared.samples
    if declared.classes:
        yield "classes", ", ".join(f"{index} {name}" for index, name in enumerate(declared.classes))
    if declared.pixel_size_um is not None:
        yield "pixels", f"{declared.pixel_size_um:g} micrometres"
    for note in declared.notes:
        yield "note", note
