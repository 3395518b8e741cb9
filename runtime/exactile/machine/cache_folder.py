"""The cache folder, and how large it may become."""

from __future__ import annotations

import os
from pathlib import Path

from exactile.plan.budget import parse_bytes

FOLDER_VARIABLE = "EXACTILE_CACHE_DIR"
SIZE_VARIABLE = "EXACTILE_CACHE_SIZE"
DEFAULT_BYTES = 1 << 30


def cache_folder() -> Path:
    """Return ``$EXACTILE_CACHE_DIR``, or the user's cache folder, as the system has it.

    Raises ImportError if only platformdirs, which is installed with the converter, would know.
    """
    named = os.environ.get(FOLDER_VARIABLE)
    if named:
        return Path(named)
    from platformdirs import user_cache_path

    return user_cache_path("exactile", appauthor=False)


def most_bytes() -> int:
    """Return ``$EXACTILE_CACHE_SIZE``, such as ``4GiB``, or 1 GiB: the size of all deployed models; 0 keeps none.

    Raises OptionError.
    """
    found = parse_bytes(os.environ.get(SIZE_VARIABLE) or None, SIZE_VARIABLE)
    return DEFAULT_BYTES if found is None else found
