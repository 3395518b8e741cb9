"""Describe an ND2 file."""

from __future__ import annotations

import os

from exactile.sources.description import Listing
from exactile.sources.named.description import describe_named
from exactile.sources.nd2.source import Nd2File


def describe_nd2(path: str | os.PathLike[str]) -> Listing:
    """Describe the file. Raises SourceError as ``Nd2File`` does."""
    return describe_named(path, Nd2File)
