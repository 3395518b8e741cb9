"""A run whose rows are pushed: ``python streamed.py BUNDLE IMAGE.npy RESULT MEMORY_BYTES``. Exits as the command does.

Rows are read one block after the other, as from a camera: the image is never there as a whole.
"""

from __future__ import annotations

import json
import sys

import numpy as np

from exactile import Session, open_bundle, open_sink, open_source
from exactile.errors import ExactileError
from exactile.geometry import Box, Span

ROWS = 100


def stream(bundle: str, image: str, result: str, memory_bytes: int) -> None:
    source = open_source(image)
    session = Session(open_bundle(bundle).model, memory_bytes=memory_bytes)
    sink = open_sink(result, overwrite=True)
    rows = np.empty((ROWS, source.width, source.channels), source.dtype)
    with session.stream(width=source.width, dtype=source.dtype, height=source.height, sink=sink) as stream:
        for first in range(0, source.height, ROWS):
            block = rows[: min(ROWS, source.height - first)]
            source.read(Box(Span(first, first + len(block)), Span(0, source.width)), block)
            stream.push(block)
    session.close()
    print(json.dumps({"plan": "strip", "tile": [], "predicted_memory_bytes": None}))


if __name__ == "__main__":
    try:
        stream(*sys.argv[1:4], int(sys.argv[4]))
    except ExactileError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
