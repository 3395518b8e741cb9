"""Results of an image of unknown height: kept on disk, and written to the sink once the height is known."""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from exactile.errors import SinkError
from exactile.geometry import Box, Span
from exactile.sinks.failures import os_errors_as_sink_errors
from exactile.sinks.protocol import ResultSpec, Sink, WritePlan

Array = NDArray[Any]


class SpoolingSink:
    """Takes full-width rows in order, top to bottom, and writes them to ``sink`` in ``finish``.

    Until then they are stored, uncompressed, in an unnamed file beside the output (in the temporary folder if the sink
    has no path): it is gone as soon as it is closed, whatever happens.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        path = getattr(sink, "path", None)
        self._folder = Path(path).parent if path is not None else Path(tempfile.gettempdir())
        self._spool: IO[bytes] | None = None
        self._spec: ResultSpec | None = None
        self._pieces: list[int] = []

    def buffer_bytes(self, spec: ResultSpec, plan: WritePlan) -> int:
        """Return the bytes that the sink holds, and one piece that is read back."""
        rows = max((span.length for span in plan.rows), default=0)
        piece = rows * spec.width * max(1, spec.channels) * np.dtype(spec.dtype).itemsize
        return self._sink.buffer_bytes(spec, plan) + piece

    def begin(self, spec: ResultSpec) -> None:
        """Start; the height in ``spec`` is ignored. Raises SinkError."""
        self._spec = spec
        with os_errors_as_sink_errors(self._folder):
            self._spool = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 -- lives until finish or abort

    def write(self, box: Box, block: Array) -> None:
        """Keep the next rows."""
        if self._spool is None or box.y.start != sum(self._pieces):
            raise SinkError(f"rows from {box.y.start} came where {sum(self._pieces)} were kept")
        with os_errors_as_sink_errors(self._folder):
            self._spool.write(np.ascontiguousarray(block).data)
        self._pieces.append(box.y.length)

    def finish(self) -> None:
        """Write everything to the sink, now that the height is known, and complete it."""
        if self._spool is None or self._spec is None:
            raise SinkError("the sink was not begun")
        spec = replace(self._spec, height=sum(self._pieces))
        front = (spec.channels,) if spec.channels else ()
        self._sink.begin(spec)
        first = 0
        with os_errors_as_sink_errors(self._folder):
            self._spool.seek(0)
        for rows in self._pieces:
            piece = np.empty((*front, rows, spec.width), spec.dtype)
            with os_errors_as_sink_errors(self._folder):
                if self._spool.readinto(piece.data.cast("B")) != piece.nbytes:  # type: ignore[attr-defined]
                    raise SinkError(f"the rows kept in {self._folder} cannot be read back; check the disk")
            self._sink.write(Box(Span(first, first + rows), Span(0, spec.width)), piece)
            first += rows
        self._sink.finish()
        self._close()

    def abort(self) -> None:
        """Leave nothing behind."""
        self._close()
        self._sink.abort()

    def _close(self) -> None:
        if self._spool is not None:
            with contextlib.suppress(OSError):
                self._spool.close()
            self._spool = None
