"""The result as an array in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.errors import SinkError
from exactile.geometry import Box
from exactile.sinks.blocks import as_planes, check_spec, pixel_bytes
from exactile.sinks.coverage import Coverage
from exactile.sinks.protocol import ResultSpec, WritePlan


class ArraySink:
    """Keeps the whole result in memory; ``result`` is available after ``finish``. One thread at a time."""

    def __init__(self) -> None:
        self._spec: ResultSpec | None = None
        self._pixels: NDArray[Any] | None = None
        self._coverage: Coverage | None = None
        self._result: NDArray[Any] | None = None

    @property
    def result(self) -> NDArray[Any]:
        """``(H, W)`` or ``(C, H, W)``, C-contiguous, of the result's dtype. Raises SinkError before ``finish``."""
        if self._result is None:
            raise SinkError("there is no result: the run did not finish")
        return self._result

    def buffer_bytes(self, spec: ResultSpec, plan: WritePlan) -> int:  # noqa: ARG002 -- the seam's signature
        """Return the bytes of the whole result."""
        return spec.height * spec.width * pixel_bytes(spec)

    def begin(self, spec: ResultSpec) -> None:
        """Allocate the result. Raises SinkError if there is not enough memory for it."""
        if self._spec is not None:
            raise SinkError("this sink was used before: use a new one for every run")
        check_spec(spec)
        try:
            self._pixels = np.empty(spec.shape, spec.dtype)
        except (MemoryError, ValueError) as error:
            size_bytes = spec.height * spec.width * pixel_bytes(spec)
            raise SinkError(
                f"no memory for a result of shape {spec.shape}, {spec.dtype} ({size_bytes} bytes). "
                "What to do: write it to a file"
            ) from error
        self._spec = spec
        self._coverage = Coverage(spec.height, spec.width)

    def write(self, box: Box, block: NDArray[Any]) -> None:
        """Copy ``block`` to its place. Raises SinkError if it does not fit or was written before."""
        if self._spec is None or self._pixels is None or self._coverage is None:
            raise SinkError("pixels were written to a sink that is not open")
        planes = as_planes(self._spec, box, block)
        self._coverage.add(box)
        self._pixels[(..., *box.slices())] = planes if self._spec.channels else planes[0]

    def finish(self) -> None:
        """Make ``result`` available. Raises SinkError if a pixel was never written."""
        if self._pixels is None or self._coverage is None:
            raise SinkError("a sink was finished that is not open")
        self._coverage.check_complete()
        self._result, self._pixels, self._coverage = self._pixels, None, None

    def abort(self) -> None:
        """Drop what was written; no effect after ``finish``."""
        self._pixels = self._coverage = None
