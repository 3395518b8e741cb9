"""What a source has to say about how it reads an image."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class Remarks(Protocol):
    """A source that says, a line each, what whoever looks at the result should know."""

    @property
    def remarks(self) -> tuple[str, ...]: ...


def remarks_of(source: object) -> tuple[str, ...]:
    """Those of ``source``, if it has any."""
    return source.remarks if isinstance(source, Remarks) else ()
