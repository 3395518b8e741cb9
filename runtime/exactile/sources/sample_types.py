"""Which sample types are taken, and always delivered in the machine's byte order."""

from __future__ import annotations

from typing import Any

import numpy as np

from exactile.errors import SourceError

SAMPLE_TYPES = ("uint8", "uint16", "float32")


def native_sample_type(dtype: np.dtype[Any], name: str) -> np.dtype[Any]:
    """``dtype`` in native byte order. Raises SourceError when it is none of SAMPLE_TYPES."""
    native = dtype.newbyteorder("=")
    if native.name not in SAMPLE_TYPES:
        raise SourceError(
            f"{name}: samples are {native.name}, but only {', '.join(SAMPLE_TYPES)} are read;"
            " convert the image to one of these"
        )
    return native
