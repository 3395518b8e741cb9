"""Describe a LIF file."""

from __future__ import annotations

import os

from exactile.sources.description import Listing
from exactile.sources.lif.source import LifFile
from exactile.sources.named.description import describe_named


def describe_lif(path: str | os.PathLike[str]) -> Listing:
    """Describe the file. Raises SourceError as ``LifFile`` does."""
    return describe_named(path, LifFile)
