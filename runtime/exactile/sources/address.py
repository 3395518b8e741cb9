"""Images that are not on this machine's file system: ``http://``, ``s3://``, ``memory://`` and the like."""

from __future__ import annotations

import os
import re
from pathlib import Path

_ADDRESS = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]+):/+(.*)", re.DOTALL)


def as_address(image: str | os.PathLike[str]) -> str | None:
    """Return ``image`` if it is an address, or None if it is a path.

    An address that went through ``pathlib`` and lost a slash there is also one.
    """
    text = os.fspath(image)
    match = _ADDRESS.fullmatch(text)
    if match is None or ("://" not in text and Path(text).exists()):
        return None
    scheme, rest = match.groups()
    return f"{scheme}://{'/' if scheme == 'file' else ''}{rest}"


def shown_name(image: str | os.PathLike[str]) -> str:
    """Return the name of an image for messages: its address, or its path as given."""
    return as_address(image) or os.fspath(image)
